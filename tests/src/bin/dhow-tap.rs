//! Stands between one client of a controller and the controller: `dhow-tap LISTEN UPSTREAM IDENTITY DIR`.

use std::path::Path;

use anyhow::{Result, bail};
use dhow_tests::tap;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, identity, dir] = args.as_slice() else {
        bail!("dhow-tap LISTEN UPSTREAM IDENTITY DIR");
    };
    tap::relay::run(listen.parse()?, upstream.parse()?, Path::new(identity), Path::new(dir)).await
}

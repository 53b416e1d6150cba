//! `dhow login`: a one-time token becomes a certificate for this machine's user.

use std::path::PathBuf;

use anyhow::Context as _;
use dhow_proto::dial::{Address, Dialer, token_pin};
use dhow_proto::wire::enrolment_service_client::EnrolmentServiceClient;
use dhow_proto::{token, wire};
use zeroize::Zeroizing;

use super::{Globals, Outcome};
use crate::client::Client;
use crate::home::{Home, Login, certificate_pem};
use crate::output::progress::print_line;

/// Options of login. The token itself is never an argument: arguments are visible to every process.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address of the controller
    #[arg(long, value_name = "HOST:PORT", env = "DHOW_CONTROLLER")]
    pub controller: String,
    /// File with the login token, `-` for standard input; else the variable DHOW_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
///
/// No token, no controller, or the token was refused.
pub async fn run(globals: &Globals, args: &Args) -> anyhow::Result<Outcome> {
    let token = token::read(args.token_file.as_deref(), std::env::var(token::VARIABLE).ok())?;
    let address: Address = args.controller.parse()?;
    let home = Home::find(|name| std::env::var(name).ok())?;
    let dialer = Dialer::pinned(token_pin(&token).context("this is no login token")?)?;
    let channel = dialer.connect(&address).await?;
    let key = rcgen::KeyPair::generate().context("a key could not be made")?;
    let mut params = rcgen::CertificateParams::default();
    // The controller takes the name from the token, not from the request.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key).context("a certificate request could not be made")?;
    let request =
        wire::LoginRequest { token: token.to_string(), csr_der: csr.der().to_vec().into() };
    let response =
        EnrolmentServiceClient::new(channel).login(request).await.map_err(refused)?.into_inner();
    let login = Login {
        v: 1,
        address: address.to_string(),
        addresses: response.controller_addresses,
        user: response.user,
        certificate: certificate_pem(&response.certificate_der),
        private_key: Zeroizing::new(key.serialize_pem()),
        ca_set: response.ca_set.iter().map(|der| certificate_pem(der)).collect(),
    };
    home.save_login(&login)?;
    if globals.json {
        print_line(
            &serde_json::json!({"user": login.user, "controller": login.address}).to_string(),
        );
    } else if !globals.quiet {
        print_line(&format!("logged in to {} as {}", login.address, login.user));
    }
    Ok(Outcome::Done)
}

fn refused(status: tonic::Status) -> anyhow::Error {
    match status.code() {
        // Not `explain`: logging in again with the same token is no advice.
        tonic::Code::Unauthenticated => anyhow::anyhow!("{}; get a new token", status.message()),
        _ => Client::explain(status),
    }
}

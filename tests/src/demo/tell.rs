//! What the newcomer reads: short chapters, and every command as it could be typed.

use std::cell::Cell;
use std::io::IsTerminal as _;

use super::Settings;

pub(super) struct Teller {
    chapter: Cell<usize>,
    bold: bool,
}

impl Teller {
    pub(super) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { chapter: Cell::new(0), bold: std::io::stdout().is_terminal() && !plain }
    }

    fn bold(&self, text: &str) -> String {
        if self.bold { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn chapter(&self, title: &str) {
        self.chapter.set(self.chapter.get() + 1);
        println!("\n{}", self.bold(&format!("{}. {title}", self.chapter.get())));
    }

    pub(super) fn line(&self, text: &str) {
        println!("   {text}");
    }

    pub(super) fn command(&self, words: &str) {
        println!("   {}", self.bold(&format!("$ {words}")));
    }

    pub(super) fn opening(&self, settings: &Settings) {
        println!(
            "dhow on this machine: a controller, an agent, and an app that is deployed twice.\n\
             All of it is in {}; `make demo-down` removes every trace.",
            settings.dir.display()
        );
    }

    pub(super) fn closing(&self, settings: &Settings, url: &str) {
        let dhow = settings.dir.join("dhow");
        self.chapter("Yours");
        self.line("It goes on running. Look around:");
        self.command(&format!("curl {url}/"));
        self.command(&format!("sudo {} status", dhow.display()));
        self.command(&format!("sudo {} rollback v1", dhow.display()));
        self.command("docker ps");
        self.line("Remove a container by hand, and it comes back. Remove all of it:");
        self.command("make demo-down");
        println!();
    }
}

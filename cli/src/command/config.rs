//! `dhow config`: what the config comes to, whether it is right, and its schema.
//!
//! Without a word it prints what `kamal config` prints. Under the name `kamal`, or where standard
//! output is no terminal, standard output is exactly Kamal's; whatever is said more goes to standard
//! error.

use std::io::{self, IsTerminal as _, Write};

use serde_json::json;

use super::{Globals, Outcome};
use crate::caller::Caller;
use crate::config::compile::CompileInput;
use crate::config::diagnostic::ErrorClass;
use crate::config::outside::Outside;
use crate::config::schema::json::schema;
use crate::config::{Code, Diagnostic, Diagnostics, Loaded, SystemOutside, kamal_output, load};
use crate::selection::{SelectionError, select};

/// Options of config.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// What to do instead of printing the config
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What `config` can do besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Action {
    /// Say what is wrong with the config; exit status 1 where something is
    Check,
    /// Print the JSON Schema of deploy.yml, for editors
    Schema,
}

/// Where output goes and how it looks.
struct Sinks<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Called by the name `kamal`: errors look as Kamal's.
    as_kamal: bool,
    /// Colours on standard output under the name `kamal`: Kamal writes them always.
    kamal_color: bool,
    /// Colours on standard error.
    err_color: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Only where output cannot be written; what is wrong with the config is printed.
pub fn run(globals: &Globals, args: &Args) -> anyhow::Result<Outcome> {
    let outside = SystemOutside;
    let Caller { is_kamal, color } = Caller::of_process();
    let mut sinks = Sinks {
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        as_kamal: is_kamal,
        kamal_color: color,
        err_color: color && io::stderr().is_terminal(),
    };
    let done = sinks.run(globals, args, &outside)?;
    Ok(if done { Outcome::Done } else { Outcome::Failed })
}

impl Sinks<'_> {
    fn run(&mut self, globals: &Globals, args: &Args, outside: &dyn Outside) -> io::Result<bool> {
        if args.action == Some(Action::Schema) {
            writeln!(self.out, "{:#}", schema())?;
            return Ok(true);
        }
        let result = load(&globals.load_options(), outside)
            .and_then(|loaded| self.filtered(globals, &loaded).map(|()| loaded));
        let loaded = match result {
            Ok(loaded) => loaded,
            Err(problems) => return self.problems(globals, args, &problems),
        };
        match args.action {
            Some(Action::Check) => self.check(globals, &loaded, outside),
            Some(Action::Schema) => Ok(true),
            None => self.print(globals, args, &loaded, outside),
        }
    }

    /// `--hosts` and `--roles` change nothing here, but one that matches nothing is an error.
    fn filtered(&self, globals: &Globals, loaded: &Loaded) -> Result<(), Diagnostics> {
        match select(&loaded.config, &globals.filter()) {
            Err(error @ SelectionError::NoMatch { .. }) => {
                let problem = Diagnostic::new(Code::Invalid, error.to_string());
                let problem = problem.class(ErrorClass::Argument);
                Err(Diagnostics::one(problem, loaded.sources.clone()))
            }
            // An app may have accessories only.
            Ok(_) | Err(SelectionError::Empty) => Ok(()),
        }
    }

    fn check(
        &mut self,
        globals: &Globals,
        loaded: &Loaded,
        outside: &dyn Outside,
    ) -> io::Result<bool> {
        // Whether hosts could carry it out does not depend on the version.
        let input = CompileInput { version: "check", outside };
        let compiled = match loaded.compile(&input) {
            Ok(compiled) => compiled,
            Err(problems) => {
                return self.problems(globals, &Args { action: Some(Action::Check) }, &problems);
            }
        };
        let mut warnings = loaded.warnings.clone();
        warnings.list.extend(compiled.warnings.list);
        if globals.json {
            let report = json!({ "ok": true, "errors": [], "warnings": warnings.to_json() });
            writeln!(self.out, "{report:#}")?;
            return Ok(true);
        }
        write!(self.err, "{}", warnings.render_warnings(self.err_color))?;
        if !globals.quiet {
            let files = loaded.sources.files();
            let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
            writeln!(self.out, "{} is right", names.join(" with "))?;
        }
        Ok(true)
    }

    fn print(
        &mut self,
        globals: &Globals,
        args: &Args,
        loaded: &Loaded,
        outside: &dyn Outside,
    ) -> io::Result<bool> {
        let version = match loaded.version(outside) {
            Ok(version) => version,
            Err(problems) => return self.problems(globals, args, &problems),
        };
        if globals.json {
            return match loaded.compile(&CompileInput { version: &version, outside }) {
                Ok(compiled) => {
                    // A spec holds names of secrets only; nothing in it needs to be hidden.
                    let spec = serde_json::to_value(&compiled.spec).map_err(io::Error::other)?;
                    writeln!(self.out, "{spec:#}")?;
                    Ok(true)
                }
                Err(problems) => self.problems(globals, args, &problems),
            };
        }
        let text = kamal_output::render(&loaded.config, &version).map_err(io::Error::other)?;
        self.out.write_all(text.as_bytes())?;
        if !globals.quiet {
            write!(self.err, "{}", loaded.warnings.render_warnings(self.err_color))?;
        }
        Ok(true)
    }

    fn problems(
        &mut self,
        globals: &Globals,
        args: &Args,
        problems: &Diagnostics,
    ) -> io::Result<bool> {
        if globals.json {
            let list = problems.to_json();
            let report = if args.action == Some(Action::Check) {
                json!({ "ok": false, "errors": list, "warnings": [] })
            } else {
                json!({ "errors": list })
            };
            writeln!(self.out, "{report:#}")?;
        } else if self.as_kamal {
            write!(self.out, "{}", problems.kamal_error(self.kamal_color))?;
            write!(self.err, "{}", problems.beside_kamal_error(self.err_color))?;
        } else {
            write!(self.err, "{}", problems.render(self.err_color))?;
        }
        Ok(false)
    }
}

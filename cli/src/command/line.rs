//! The command line before it is parsed: abbreviated commands and the user's aliases become what
//! they stand for.
//!
//! In: words. Out: words that begin with a whole command. PURE but for the look-up of an alias.
//!
//! A command may be abbreviated as with Thor, which Kamal uses: a beginning that only one command of
//! Kamal's has. Commands that only dhow has take no part in that, so that what is short today stays
//! short; they have to be written out, and a user's alias of the same name beats them. Aliases come
//! last for Kamal's own commands: `con` is `config`, whatever an alias says.

use std::path::PathBuf;

use crate::config::validate::sections::BUILT_IN;
use crate::config::{Diagnostics, LoadOptions};

/// Kamal's groups with their commands; `help` and `tree` are everywhere.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "accessory",
        &[
            "boot", "details", "exec", "logs", "reboot", "remove", "restart", "start", "stop",
            "upgrade",
        ],
    ),
    (
        "app",
        &[
            "boot",
            "containers",
            "details",
            "exec",
            "images",
            "live",
            "logs",
            "maintenance",
            "remove",
            "stale_containers",
            "start",
            "stop",
            "version",
        ],
    ),
    ("build", &["create", "deliver", "details", "dev", "pull", "push", "remove"]),
    ("lock", &["acquire", "release", "status"]),
    (
        "proxy",
        &["boot", "boot_config", "details", "logs", "reboot", "remove", "restart", "start", "stop"],
    ),
    ("prune", &["all", "containers", "images"]),
    ("registry", &["login", "logout", "remove", "setup"]),
    ("secrets", &["extract", "fetch", "print"]),
    ("server", &["bootstrap", "exec"]),
];

/// Aliases of aliases: more of them is a circle.
const MAX_ALIASES: usize = 10;

/// Why a command line means nothing.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Kamal's words.
    #[error("Ambiguous command {word} matches [{}]", matches.join(", "))]
    Ambiguous {
        /// As written.
        word: String,
        /// The commands that begin so, sorted.
        matches: Vec<String>,
    },
    /// An alias that cannot be split.
    #[error("the alias `{name}` cannot be read: a quote in its text is not closed")]
    Quote {
        /// Its name.
        name: String,
    },
    /// An alias that stands for nothing.
    #[error("the alias `{name}` stands for nothing")]
    Empty {
        /// Its name.
        name: String,
    },
    /// Aliases that name each other.
    #[error("the alias `{name}` leads back to itself")]
    Circle {
        /// The last one looked at.
        name: String,
    },
    /// A command of Kamal 1, in an app that is on its way from Traefik to kamal-proxy (S9).
    #[error(
        "`traefik {command}` is disabled while the config has `proxy: {{enabled: true}}`; use `proxy {command}`"
    )]
    Traefik {
        /// What `traefik` was to do.
        command: String,
    },
    /// The word is no command, and the config that might have an alias cannot be read.
    #[error("`{word}` is no command, and no alias can be looked up")]
    Unreadable {
        /// As written.
        word: String,
        /// Why.
        problems: Diagnostics,
    },
}

/// Looks up an alias in the config that some options name.
pub type Aliases<'a> = &'a dyn Fn(&str, &LoadOptions) -> Result<Option<String>, Diagnostics>;

/// Whether the config that some options name is on its way from Traefik to kamal-proxy.
pub type Transitional<'a> = &'a dyn Fn(&LoadOptions) -> bool;

/// Refuses `traefik …` of Kamal 1 where the config has `proxy.enabled`; elsewhere it is a word like any
/// other. `words` are those that [`resolve`] gave.
///
/// # Errors
///
/// [`LineError::Traefik`].
pub fn refuse_traefik(
    words: &[String],
    commands: &clap::Command,
    transitional: Transitional<'_>,
) -> Result<(), LineError> {
    let Some(at) = command_at(words, 0, commands).filter(|at| words[*at] == "traefik") else {
        return Ok(());
    };
    if !transitional(&options_of(words)) {
        return Ok(());
    }
    let command = command_at(words, at + 1, commands).map_or("reboot", |at| words[at].as_str());
    Err(LineError::Traefik { command: command.to_owned() })
}

/// Replaces abbreviations and aliases. `words` are without the program's name; `commands` is what
/// can be parsed.
///
/// # Errors
///
/// [`LineError`].
pub fn resolve(
    mut words: Vec<String>,
    commands: &clap::Command,
    aliases: Aliases<'_>,
) -> Result<Vec<String>, LineError> {
    for _ in 0..MAX_ALIASES {
        words = with_hyphens(&words, commands);
        let Some(at) = command_at(&words, 0, commands) else { return Ok(words) };
        let word = words[at].clone();
        let is_own = |name: &str| commands.find_subcommand(name).is_some();
        if let Some(command) = whole(&word, &top_level(), is_own(&word))? {
            words[at] = spelled(&command, commands);
            return in_group(words, at, commands);
        }
        let options = options_of(&words);
        let found = match aliases(&word, &options) {
            Ok(found) => found,
            // Most of dhow's own commands need no config.
            Err(_) if is_own(&word) => None,
            Err(problems) => return Err(LineError::Unreadable { word, problems }),
        };
        let Some(text) = found else { return Ok(words) };
        // Without the text, which a template may have made.
        let line = shlex::split(&text).ok_or_else(|| LineError::Quote { name: word.clone() })?;
        if line.is_empty() {
            return Err(LineError::Empty { name: word });
        }
        words.splice(at..=at, line);
    }
    let name = command_at(&words, 0, commands).map_or_else(String::new, |at| words[at].clone());
    Err(LineError::Circle { name })
}

/// The same within a group of commands.
fn in_group(
    mut words: Vec<String>,
    group_at: usize,
    commands: &clap::Command,
) -> Result<Vec<String>, LineError> {
    let group = words[group_at].clone();
    let Some((_, names)) = GROUPS.iter().find(|(name, _)| *name == group) else { return Ok(words) };
    let Some(below) = commands.find_subcommand(&group) else { return Ok(words) };
    let Some(at) = command_at(&words, group_at + 1, commands) else { return Ok(words) };
    let names: Vec<&str> = names.iter().copied().chain(["help", "tree"]).collect();
    let is_own = below.find_subcommand(&words[at]).is_some();
    if let Some(command) = whole(&words[at], &names, is_own)? {
        words[at] = spelled(&command, below);
    }
    Ok(words)
}

fn top_level() -> Vec<&'static str> {
    BUILT_IN.iter().copied().chain(["help", "tree"]).collect()
}

/// The command of Kamal's that `word` is, or is the beginning of; `None` for another word.
fn whole(word: &str, names: &[&str], is_own: bool) -> Result<Option<String>, LineError> {
    let underscored = word.replace('-', "_");
    if names.contains(&underscored.as_str()) {
        return Ok(Some(underscored));
    }
    if is_own {
        return Ok(None);
    }
    let mut matches: Vec<String> =
        names.iter().filter(|name| name.starts_with(word)).map(|name| (*name).to_owned()).collect();
    matches.sort();
    match matches.len() {
        0 => Ok(None),
        1 => Ok(matches.pop()),
        _ => Err(LineError::Ambiguous { word: word.to_owned(), matches }),
    }
}

/// The command's name as the parser knows it: with hyphens or underscores.
fn spelled(name: &str, commands: &clap::Command) -> String {
    let hyphens = name.replace('_', "-");
    if commands.find_subcommand(&hyphens).is_some() { hyphens } else { name.to_owned() }
}

/// `--skip_push` is `--skip-push`, as with Thor, where it is an option that some command has: others
/// may belong to a command line that is only passed on.
fn with_hyphens(words: &[String], commands: &clap::Command) -> Vec<String> {
    let passed_on = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (options, rest) = words.split_at(passed_on);
    let spelled = options.iter().map(|word| {
        let Some(option) = word.strip_prefix("--") else { return word.clone() };
        let (name, value) = option.split_at(option.find('=').unwrap_or(option.len()));
        let name = name.replace('_', "-");
        if is_option(&name, commands) { format!("--{name}{value}") } else { word.clone() }
    });
    spelled.chain(rest.iter().cloned()).collect()
}

fn is_option(name: &str, commands: &clap::Command) -> bool {
    commands.get_arguments().any(|argument| argument.get_long() == Some(name))
        || commands.get_subcommands().any(|below| is_option(name, below))
}

/// The first word from `from` on that is neither an option nor an option's value.
fn command_at(words: &[String], from: usize, commands: &clap::Command) -> Option<usize> {
    let mut at = from;
    while let Some(word) = words.get(at) {
        if word == "--" || !word.starts_with('-') || word == "-" {
            return (word != "--").then_some(at);
        }
        at += if takes_next(word, commands) { 2 } else { 1 };
    }
    None
}

/// Whether an option's value is the next word.
fn takes_next(word: &str, commands: &clap::Command) -> bool {
    let takes_value = |argument: &clap::Arg| argument.get_action().takes_values();
    if let Some(name) = word.strip_prefix("--") {
        return commands
            .get_arguments()
            .any(|argument| argument.get_long() == Some(name) && takes_value(argument));
    }
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        let argument = commands.get_arguments().find(|a| a.get_short() == Some(letter));
        if argument.is_some_and(takes_value) {
            return letters.next().is_none();
        }
    }
    false
}

/// `-c` and `-d`, wherever they stand: they say which config has the aliases.
fn options_of(words: &[String]) -> LoadOptions {
    let mut options = LoadOptions::default();
    let mut words = words.iter().take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        for (long, short) in [("--config-file", "-c"), ("--destination", "-d")] {
            let value = if word == long || word == short {
                words.peek().map(|next| (*next).clone())
            } else if let Some(value) =
                word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='))
            {
                Some(value.to_owned())
            } else {
                word.strip_prefix(short)
                    .filter(|_| !word.starts_with("--"))
                    .map(|value| value.strip_prefix('=').unwrap_or(value).to_owned())
            };
            match value {
                Some(value) if long == "--config-file" => {
                    options.config_file = Some(PathBuf::from(value));
                }
                Some(value) => options.destination = Some(value),
                None => {}
            }
        }
    }
    options
}

#[cfg(test)]
mod tests;

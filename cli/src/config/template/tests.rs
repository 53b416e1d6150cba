//! Templates as people write them.

use super::super::outside::fake::FakeOutside;
use super::*;

fn outside() -> FakeOutside {
    FakeOutside::default()
        .with_var("X", "value")
        .with_var("LIST", "a,b,,")
        .with_command("git rev-parse HEAD", "abc\n")
        .with_command("docker info --format '{{.Architecture}}'", "x86_64\n")
}

fn rendered(text: &str) -> String {
    render(text, 0, &[("KAMAL_DESTINATION".into(), "staging".into())], &outside())
        .unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
        .text
}

fn refused(text: &str) -> Diagnostic {
    *render(text, 0, &[], &outside()).unwrap_err()
}

#[test]
fn values_come_from_environment_strings_and_commands() {
    for (template, text) in [
        ("a: <%= ENV[\"X\"] %>", "a: value"),
        ("a: <%= ENV['NONE'] %>", "a: "),
        ("<%= ENV.fetch(\"X\") %>", "value"),
        ("<%= ENV.fetch('NONE', \"d\") %>", "d"),
        ("<%= ENV.fetch('NONE') { \"d\" } %>", "d"),
        ("<%= ENV['NONE'] || 'd' %>", "d"),
        ("<%= ENV['NONE'].presence || 'd' %>", "d"),
        ("<%= \" \n\".presence || 'd' %>", "d"),
        ("<%= ' x '.presence || 'd' %>", " x "),
        ("<%= ENV['X'] == 'value' ? 1 : 2 %>", "1"),
        ("<%= ENV['X'].nil? ? 1 : 2 %>", "2"),
        ("<%= \"a-#{ENV['X'].upcase}-b\" %>", "a-VALUE-b"),
        ("<%= 'a#{b}' %>", "a#{b}"),
        ("<%= `git rev-parse HEAD`.strip %>", "abc"),
        ("<%= %x(git rev-parse HEAD).chomp %>", "abc"),
        ("<%= %x[git rev-parse HEAD] %>", "abc\n"),
        ("<%= ENV['LIST'].split(\",\") %>", "[\"a\", \"b\"]"),
        ("<%= '12x'.to_i %>", "12"),
        ("<%= RUBY_ENGINE %>", "ruby"),
        ("<%= 'ΑΣ'.downcase %>", "ασ"),
        ("<%= Kamal::Utils.docker_arch %>", "amd64"),
        ("<%= ENV['KAMAL_DESTINATION'] %>", "staging"),
        ("<% host = 'h' %><%= host %>", "h"),
        ("<%= ENV['NONE']&.upcase %>", ""),
        ("<%= !ENV['NONE'] && 'yes' %>", "yes"),
        ("<%= ('a' + 'b') %>", "ab"),
        ("<%= %w[a b][1] %>", "b"),
        ("<%% literal %>", "<% literal %>"),
        ("<% require 'json' -%>\na", "a"),
        ("<%# anything at all ( %>a", "a"),
    ] {
        assert_eq!(rendered(template), text, "{template}");
    }
}

/// Without a destination the variable is nobody's, whatever surrounds the program.
#[test]
fn the_destination_is_that_of_the_command_line() {
    let around = outside().with_var("KAMAL_DESTINATION", "around");
    let rendered = |env: &[(String, String)]| {
        let text = "<%= ENV['KAMAL_DESTINATION'] || 'none' %>";
        render(text, 0, env, &around).unwrap().text
    };
    assert_eq!(rendered(&[]), "none");
    assert_eq!(rendered(&[("KAMAL_DESTINATION".into(), "staging".into())]), "staging");
}

#[test]
fn branches_write_one_part() {
    let template =
        "<% if ENV['X'] == 'no' -%>\na\n<% elsif ENV['X'] -%>\nb\n<% else -%>\nc\n<% end -%>\nd\n";
    assert_eq!(rendered(template), "b\nd\n");
    assert_eq!(rendered("<% unless ENV['X'] %>a<% else %>b<% end %>"), "b");
    assert_eq!(rendered("<% if false %><% if true %>a<% else %>b<% end %>c<% end %>d"), "d");
    assert_eq!(rendered("a\n  <%- if true -%>\nb\n  <%- end -%>\n"), "a\nb\n");
}

#[test]
fn a_yaml_comment_never_fails() {
    assert_eq!(rendered("a: 1 # <%= foo.bar { |x| x } %>\n"), "a: 1 # \n");
    assert_eq!(rendered("# <%= ENV.fetch('NONE') %> <%= ENV['X'] %>\nb"), "#  value\nb");
}

/// `hangs` takes longer than it may, which is an error wherever it is run.
#[test]
fn no_command_of_a_comment_is_run() {
    assert_eq!(rendered("# <%= `git rev-parse HEAD` %>\nb"), "# \nb");
    assert_eq!(rendered("# <% if `git rev-parse HEAD` %>\n# a\n# <% end %>\nb"), "# \nb");
    let elsif = "# <% if false %>\n# <% elsif `hangs` %>\n# a\n# <% else %>\n# b\n# <% end %>\nc";
    assert_eq!(rendered(elsif), "# \nc");
    // Nobody knows then whether what stands outside the comment is meant.
    let live = "# <% if `git rev-parse HEAD` %>\nhost: a\n# <% end %>\n";
    let problem = refused(live);
    assert_eq!(problem.message, "a command in a YAML comment is not run");
    assert_eq!(problem.span.unwrap().start, 8);
    assert!(refused("# <% if `a` %>\n# x\n<% if 1 %><% end %># <% end %>").span.is_some());
    assert!(refused("# <% %w[a b].each do |h| %>\n- <%= h %>\n# <% end %>").span.is_some());
    let lost = "# <% if `a` %>\n# <% h = 1 %>\n# <% end %>\nimage: <%= h %>";
    assert_eq!(refused(lost).message, "a command in a YAML comment is not run");
    let within = "<% if 1 %>\n# <% %w[a].each do |h| %>\n# <% end %>\na\n<% end %>b";
    assert_eq!(rendered(within), "\n# \na\nb");
}

#[test]
fn an_assignment_in_a_comment_counts() {
    assert_eq!(rendered("# <% h = 'h9' %>\nimage: a<%= h %>"), "# \nimage: ah9");
    assert_eq!(rendered("# <% if ENV['X'] %>\na\n# <% else %>\nb\n# <% end %>"), "# \na\n# ");
    for assignment in ["h = `git rev-parse HEAD`", "h = foo.bar", "h ||= 2"] {
        let lost = format!("<% h = 1 %># \n# <% {assignment} %>\nimage: a<%= h %>");
        let place = refused(&lost).span.unwrap();
        assert!((18..36).contains(&place.start), "{assignment}: {place:?}");
    }
    assert_eq!(rendered("# <% h = `git` %>\n<% h = 2 %><%= h %>"), "# \n2");
}

/// Each `[1]` is evaluated; each `[0]` stands in a comment.
#[test]
fn comments_are_told_from_text_that_only_looks_like_one() {
    let long = format!("a: |\n{}  # [1]\n# [0]\n", "  x\n".repeat(1_000));
    for template in [
        "a: \"5\\\" # [1]\" # [0]",
        "a: \"x\\\\\" # [0]",
        "a: 'it''s # [1]' # [0]",
        "a: \"one\n  # [1]\n  two # [1]\" # [0]\nb: [1] # [0]",
        "a: 'one\n\n  two\" # [1]' # [0]",
        "a: {b: \"c # [1]\", d: [\"e # [1]\"]} # [0]",
        "cmd: | # a note\n  # [1] text\nb: 1 # [0]",
        "cmd: > # it's \"a\n  # [1] \" '\n# [0]\nb: 1 # [0]",
        "- |\n  it's \"so\n  # [1]\n- a # [0]",
        "--- |\n# [1]",
        "- >-2\n\n    # [1]\n # [0]\n",
        "a: |\n  b:\n      c\n    # [1]\nd:\n  e: # [0]\n  # [0]\n",
        "a:\n  - b: |+\n      # [1]\n\n      # [1]\n    c: # [0]",
        "a: |\n<% if 1 %>\n  # [1]\n<%- end -%>\n  # [1]\n# [0]",
        "a: don't # [0]\nb: it's # [0]",
        "# it's\na: b # [0]",
        "a: x\r\nb: |\r\n  # [1]\r\nc: 1 # [0]\r\n",
        "a: x#[1] '#[1]' # [0]",
        long.as_str(),
    ] {
        let tags = template.replace("[0]", "<%= %x(git rev-parse HEAD).strip + '0' %>");
        let tags = tags.replace("[1]", "<%= %x(git rev-parse HEAD).strip + '1' %>");
        let out = rendered(&tags);
        assert!(!out.contains("abc0"), "{out}");
        assert_eq!(out.matches("abc1").count(), template.matches("[1]").count(), "{out}");
    }
    assert_eq!(rendered("<%= 'a' # why\n%> <%= 'b' %>"), "a b");
}

#[test]
fn what_to_write_instead_is_said() {
    for (template, instead) in [
        ("<% hosts.each do |host| %>", "there are no loops"),
        ("<%= %w[a b].map { |host| host } %>", "there are no loops"),
        ("<%= File.read('VERSION') %>", "%x(cat FILE)"),
        ("<%= Time.now.to_i %>", "%x(date +%s)"),
        ("<%= ENV['X'] if true %>", "condition ? a : b"),
        ("<%= ENV['X'] or 'b' %>", "write `&&`, `||` or `!`"),
        ("<% x = 1 %><% x ||= 2 %>", "the whole assignment"),
        ("<%= ENV['X'][0, 7] %>", "cut -c1-7).strip"),
        ("<%= ENV['X'][..6] %>", "cut -c1-7).strip"),
        ("<%= ENV['X'].gsub('a', 'b') %>", "let a command do it"),
        ("<% require 'dotenv/load' %>", "set the variables"),
        ("<% require_relative 'x' %>", "set the variables"),
        ("<%= ENV['X'].to_i > 3 %>", "compare with `==`"),
        ("<%= Rails.env %>", "take the value from an environment variable"),
    ] {
        let hint = refused(template).hint.unwrap();
        assert!(hint.contains(instead) && hint.contains("DHOW_ERB=ruby"), "{template}: {hint}");
    }
}

#[test]
fn time_and_memory_are_bounded() {
    let doubled = format!("<% a = 'aaaa' %>{}", "<% a = a + a %>".repeat(60));
    assert!(refused(&doubled).message.contains("too large"));
    let doubled = format!("<% a = ['a'] %>{}", "<% a = [a, a] %>".repeat(60));
    assert!(refused(&doubled).message.contains("too large"));
    // Neither a long line nor deep nesting takes more than its length.
    let begun = std::time::Instant::now();
    assert_eq!(rendered(&"<%=1%>".repeat(50_000)).len(), 50_000);
    let nested = format!("{}{}", "<%if 1%>".repeat(30_000), "<%end%>".repeat(30_000));
    assert_eq!(rendered(&nested), "");
    assert_eq!(rendered(&"  # <%=1%>\n".repeat(30_000)).len(), 180_000);
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn anything_else_is_an_error_at_its_place() {
    let problem = refused("retain: <%= [1, 2].sum %>\n");
    assert_eq!(problem.message, "`.sum` is Ruby that dhow does not evaluate");
    assert_eq!((problem.span.unwrap().start, problem.span.unwrap().end), (12, 22));
    assert!(problem.hint.unwrap().contains("DHOW_ERB=ruby"));
    let escape = refused("a: <%= \"b\\x41\" + ENV['X'] %>");
    assert_eq!(escape.message, "`\\x` is Ruby that dhow does not evaluate");
    assert_eq!((escape.span.unwrap().start, escape.span.unwrap().end), (9, 11));
    for (template, message) in [
        ("<%= File.read('x') %>", "`File.read` is Ruby that dhow does not evaluate"),
        ("<%= ENV.fetch('NONE') %>", "the environment variable NONE is not set"),
        ("<%= ENV['NONE'].upcase %>", "`.upcase` of nothing (nil)"),
        ("<% hosts.each do |host| %>", "`do |host|` is Ruby that dhow does not evaluate"),
        ("<%= foo %>", "`foo` is Ruby that dhow does not evaluate"),
        ("<%= 'a %>", "this string is not closed"),
        ("<%= ENV['X'", "this `<%` has no `%>`"),
        ("<% if true %>", "this `if` has no `end`"),
        ("<% end %>", "`end` without `if`"),
        ("<%= `hangs` %>", "the command `hangs` took longer than 60 seconds"),
        ("<%= %x(a #{ENV['X']}) %>", "the command %x(a #{ENV['X']}) took longer than 60 seconds"),
    ] {
        assert_eq!(refused(template).message, message, "{template}");
    }
    assert!(refused(&format!("<%= {}1 %>", "(".repeat(10_000))).message.contains("too deeply"));
    assert!(refused(&format!("<%= {}1 %>", "!".repeat(10_000))).message.contains("too deeply"));
}

/// Each link makes the tree deeper, though nothing is nested.
#[test]
fn a_long_flat_expression_is_refused() {
    for (first, more) in [
        ("1", "+1"),
        ("nil", "||nil"),
        ("1", "&&1"),
        ("1", "==1"),
        ("'a'", ".strip"),
        ("[1]", "[0]"),
    ] {
        let of = |length: usize| format!("a: 1\nb: <%= {first}{} %>", more.repeat(length));
        let problem = refused(&of(100_000));
        assert_eq!(problem.message, "this expression is too long", "{more}");
        assert_eq!(problem.span.unwrap().start as usize, 12 + first.len() + 200 * more.len());
    }
    assert_eq!(rendered(&format!("<%= 0{} %>", "+1".repeat(200))), "200");
    // Nesting and length together stay within the stack.
    let nested = format!("<%= {}1{} %>", "(".repeat(49), "+1+1+1+1)".repeat(49));
    assert_eq!(rendered(&nested), "197");
}

#[test]
fn places_in_the_result_lead_back_to_the_template() {
    let out = render("a: <%= ENV['X'] %>\nb: 1\n", 0, &[], &outside()).unwrap();
    assert_eq!(out.text, "a: value\nb: 1\n");
    let at = |needle: &str| u32::try_from(out.text.find(needle).unwrap()).unwrap();
    assert_eq!(out.map.source(at("value") + 2), 3);
    assert_eq!(out.map.source(at("b:")), 19);
}

//! Who is refused: by whom, in which words, with which exit status, and that the controller logs it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::run::wait_until;
use serde_json::Value;

use crate::stage::{Stage, command, done, refused};

/// The secret part of a token.
fn secret(token: &str) -> &str {
    token.split('.').nth(3).expect("a token has five parts")
}

#[test]
fn a_token_is_good_once() -> Result<()> {
    let stage = Stage::with_admin()?;
    let login = ["login", "--controller", stage.address(), "--token-file", "-"];
    let again = stage.dhow_with(&login, stage.token())?;
    refused(&again, 1, &["token was used already, at ", "get a new token"]);
    stage.logged(&["WARN", "a token was refused", "127.0.0.1:", "used already"])?;

    let token = stage.host_token("h1")?;
    stage.join(&token, "h1")?.ok()?;
    let before = fs::read(stage.path("h1/identity.json")).context("joined")?;
    refused(&stage.join(&token, "h1")?, 1, &["the controller refused", "token was used already"]);
    assert_eq!(fs::read(stage.path("h1/identity.json")).context("joined")?, before);
    assert!(!stage.log()?.contains(secret(&token)));
    Ok(())
}

#[test]
fn an_agent_that_never_joined_says_how_to() -> Result<()> {
    let stage = Stage::new()?;
    for state in ["nowhere/h1", "app"] {
        let mut run = command("dhow-agent")?;
        let run = done(run.args(["run", "--state-dir"]).arg(stage.path(state)))?;
        refused(&run, 1, &["this host has not joined: run `dhow-agent join`"]);
    }
    assert!(!stage.path("nowhere").exists());
    Ok(())
}

#[test]
fn a_token_expires() -> Result<()> {
    let stage = Stage::with_admin()?;
    let made = stage.json(&["host", "token", "h1", "--valid-for", "1s"])?;
    let text = |key: &str| made[key].as_str().map(str::to_owned).context("a text");
    let expires_at: jiff::Timestamp = text("expires_at")?.parse().context("a time")?;
    wait_until("the token expires", Duration::from_secs(30), || {
        Ok((jiff::Timestamp::now() > expires_at).then_some(()))
    })?;
    refused(&stage.join(&text("token")?, "h1")?, 1, &["the controller refused: token expired at "]);
    stage.logged(&["WARN", "a token was refused", "expired at"])?;
    assert!(!stage.path("h1").exists(), "nothing is kept of a join that was refused");
    Ok(())
}

#[test]
fn a_token_is_for_one_purpose_and_one_name() -> Result<()> {
    let stage = Stage::with_admin()?;
    let token = stage.host_token("h1")?;
    refused(&stage.join(&token, "h2")?, 1, &["the token is for host h1, not for h2"]);
    stage.logged(&["WARN", "a join token was used for another host", "h1", "h2"])?;
    let login = ["login", "--controller", stage.address(), "--token-file", "-"];
    refused(&stage.dhow_with(&login, &token)?, 1, &["this is not a login token"]);
    let made_up = token.replace(secret(&token), &"A".repeat(43));
    refused(&stage.join(&made_up, "h1")?, 1, &["unknown token"]);
    stage.logged(&["WARN", "a token was refused", "unknown token"])?;
    refused(&stage.join("dhow1.join.cut.off", "h1")?, 1, &["this is no join token"]);
    // What was refused did not use it up.
    stage.join(&token, "h1")?.ok()?;
    Ok(())
}

#[test]
fn a_token_on_the_command_line_is_refused_without_being_repeated() -> Result<()> {
    let stage = Stage::new()?;
    let token = stage.token();
    let with_equals = format!("--token={token}");
    for words in
        [vec![token], vec!["--token", token], vec![&with_equals], vec!["--token-file", token]]
    {
        for (program, line, status) in
            [("dhow", ["login", "--controller"], 64), ("dhow-agent", ["join", "--controller"], 2)]
        {
            let output = done(command(program)?.args(line).arg(stage.address()).args(&words))?;
            refused(&output, status, &["a token must not be an argument", "--token-file"]);
            assert!(!output.text().contains(secret(token)), "{}", output.text());
        }
    }
    // By the variable it is taken.
    let mut login = stage.dhow_command("home")?;
    login.args(["login", "--controller", stage.address()]).env("DHOW_TOKEN", token);
    done(&mut login)?.ok()?;
    Ok(())
}

/// A login file with some keys of another's.
fn mixed(stage: &Stage, from: &Stage, keys: &[&str], home: &str) -> Result<()> {
    let read = |stage: &Stage| -> Result<Value> {
        let text = fs::read(stage.path("home/login.json")).context("a login")?;
        serde_json::from_slice(&text).context("a login")
    };
    let (mut login, other) = (read(stage)?, read(from)?);
    for key in keys {
        login[*key] = other[*key].clone();
    }
    fs::create_dir_all(stage.path(home)).context("a home")?;
    fs::write(stage.path(home).join("login.json"), login.to_string()).context("a login")
}

#[test]
fn a_certificate_of_another_authority_is_refused_in_words() -> Result<()> {
    let (stage, foreign) = (Stage::with_admin()?, Stage::with_admin()?);
    mixed(&stage, &foreign, &["certificate", "private_key"], "foreign")?;
    for args in [
        &["status"][..],
        &["host", "list"],
        &["rollout", "list"],
        &["deploy", "-P", "--version", "v1"],
    ] {
        let output = stage.dhow_as("foreign", args)?;
        let words = [stage.address(), "refuses this certificate", "run `dhow login` again"];
        refused(&output, 1, &words);
    }
    stage.logged(&["WARN", "refused a connection", "invalid peer certificate"])?;

    // An agent goes on trying, as somebody may put this right, and says why.
    foreign.join(&foreign.host_token("h1")?, "h1")?.ok()?;
    stage.join(&stage.host_token("h1")?, "h1")?.ok()?;
    let read = |stage: &Stage| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(stage.path("h1/identity.json"))?)?)
    };
    let (mut mine, theirs) = (read(&stage)?, read(&foreign)?);
    for key in ["certificate", "key"] {
        mine[key] = theirs[key].clone();
    }
    fs::write(stage.path("h1/identity.json"), mine.to_string()).context("an identity")?;
    let mut agent = stage.run_agent("h1")?;
    wait_until("the agent says why it has no session", Duration::from_secs(30), || {
        let log = fs::read_to_string(stage.path("h1.log")).context("the agent's log")?;
        Ok(log.contains("refuses this certificate").then_some(()))
    })?;
    assert_eq!(agent.ended()?, None);
    let hosts = stage.json(&["host", "list"])?;
    assert_eq!(hosts[0]["online"], false, "{hosts}");
    Ok(())
}

#[test]
fn a_controller_of_another_authority_is_told_nothing() -> Result<()> {
    let (stage, foreign) = (Stage::with_admin()?, Stage::with_admin()?);
    mixed(&stage, &foreign, &["address", "addresses"], "astray")?;
    let words = [foreign.address(), "not the controller of this login"];
    refused(&stage.dhow_as("astray", &["status"])?, 1, &words);
    foreign.logged(&["WARN", "refused a connection", "alert"])?;
    let token = stage.host_token("h1")?;
    refused(
        &foreign.join(&token, "h1")?,
        1,
        &["no controller could be reached that the token was made by"],
    );
    assert!(!foreign.log()?.contains(secret(&token)));
    stage.join(&token, "h1")?.ok()?;
    Ok(())
}

#[test]
fn a_controller_under_a_name_its_certificate_does_not_carry_is_not_spoken_to() -> Result<()> {
    let stage = Stage::named("localhost")?;
    let login = ["login", "--controller", stage.address(), "--token-file", "-"];
    let output = stage.dhow_with(&login, stage.token())?;
    let words =
        [stage.address(), "is not a controller this certificate belongs to", "not valid for name"];
    refused(&output, 1, &words);
    stage.logged(&["WARN", "refused a connection", "alert"])?;
    let mut join = command("dhow-agent")?;
    join.args(["join", "--controller", stage.address(), "--name", "h1", "--state-dir"]);
    join.arg(stage.path("h1"))
        .env("DHOW_TOKEN", stage.token().replace("dhow1.login", "dhow1.join"));
    refused(&done(&mut join)?, 1, &["not valid for name"]);
    assert!(!stage.log()?.contains("a token was refused"), "no token was told");

    // By a name that it carries the same token is good.
    let named = stage.address().replace("127.0.0.1", "localhost");
    stage
        .dhow_with(&["login", "--controller", &named, "--token-file", "-"], stage.token())?
        .ok()?;
    Ok(())
}

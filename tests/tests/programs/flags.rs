//! Kamal's options on dhow's commands: each is seen to do what it says.

use std::fs;

use anyhow::{Context as _, Result};

use crate::model::{self, ModelAgent};
use crate::stage::{CONFIG, Stage, refused};

/// The hosts a deploy with these options would be about: none has joined, so it names them and does nothing.
fn hosts(stage: &Stage, options: &[&str]) -> Result<Vec<String>> {
    let output = stage.dhow(&[&["deploy", "-P", "--version", "v1"], options].concat())?;
    refused(&output, 1, &["not enrolled"]);
    let named = |host: &&&str| output.stderr.contains(**host);
    Ok(["h1", "h2", "h3", "h4"].iter().filter(named).map(|host| (*host).to_owned()).collect())
}

#[test]
fn hosts_roles_and_primary_choose_whom_a_deploy_is_about() -> Result<()> {
    let stage = Stage::with_admin()?;
    for (options, expected) in [
        (&[][..], &["h1", "h2", "h3"][..]),
        (&["-h", "h2"], &["h2"]),
        (&["--hosts", "h2,h3"], &["h2", "h3"]),
        (&["--hosts=h[12]"], &["h1", "h2"]),
        (&["-r", "jobs"], &["h3"]),
        (&["--roles", "w*"], &["h1", "h2"]),
        (&["-p"], &["h1"]),
        (&["--primary"], &["h1"]),
        (&["-p", "-r", "jobs"], &["h3"]),
    ] {
        assert_eq!(hosts(&stage, options)?, expected, "{options:?}");
    }
    let none = stage.dhow(&["deploy", "-P", "--version", "v1", "-h", "nowhere"])?;
    refused(&none, 1, &["No --hosts match for nowhere"]);
    let none = stage.dhow(&["deploy", "-P", "--version", "v1", "-r", "nobody"])?;
    refused(&none, 1, &["No --roles match for nobody"]);
    Ok(())
}

#[test]
fn config_file_and_destination_choose_what_is_read() -> Result<()> {
    let stage = Stage::with_admin()?;
    let config = stage.project().join("config");
    fs::write(config.join("other.yml"), CONFIG.replace("[h1, h2]", "[h4]")).context("a config")?;
    fs::write(config.join("deploy.staging.yml"), "servers: {web: [h2]}\n").context("a config")?;
    assert_eq!(hosts(&stage, &["-c", "config/other.yml"])?, ["h3", "h4"]);
    assert_eq!(hosts(&stage, &["--config-file", "config/other.yml"])?, ["h3", "h4"]);
    assert_eq!(hosts(&stage, &["--config_file=config/other.yml", "-r", "web"])?, ["h4"]);
    assert_eq!(hosts(&stage, &["-d", "staging", "-r", "web"])?, ["h2"]);
    assert_eq!(hosts(&stage, &["--destination", "staging", "-p"])?, ["h2"]);
    refused(&stage.dhow(&["status", "-d", "nowhere"])?, 1, &["deploy.nowhere.yml"]);
    refused(&stage.dhow(&["status", "-c", "nowhere.yml"])?, 1, &["nowhere.yml"]);
    Ok(())
}

#[test]
fn the_push_is_skipped_by_either_name_and_refused_without() -> Result<()> {
    let stage = Stage::with_admin()?;
    for command in ["deploy", "setup", "redeploy"] {
        let words = ["building images is not supported yet", "--skip-push", "(-P)"];
        refused(&stage.dhow(&[command, "--version", "v1"])?, 1, &words);
        for skip in ["-P", "--skip-push", "--skip_push"] {
            refused(&stage.dhow(&[command, skip, "--version", "v1"])?, 1, &["not enrolled"]);
        }
    }
    Ok(())
}

#[test]
fn what_hooks_print_is_shown_with_v_and_they_are_left_out_with_capital_h() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.config(model::CONFIG)?;
    stage.hook("pre-deploy", "echo \"said $KAMAL_VERSION\"; echo ran >> ran")?;
    let _agent = ModelAgent::start(&stage, &["v1"])?;
    let ran =
        || fs::read_to_string(stage.project().join("ran")).unwrap_or_default().lines().count();
    let deploy = |options: &[&str]| -> Result<String> {
        let args = [&["deploy", "-P", "--version", "v1"], options].concat();
        Ok(stage.dhow(&args)?.ok()?.stdout)
    };
    let plain = deploy(&[])?;
    assert!(plain.contains("hook pre-deploy runs") && !plain.contains("said v1"), "{plain}");
    assert!(plain.contains("shop v1 is live on 1 host ("), "{plain}");
    assert_eq!(ran(), 1);
    for (count, shown) in [(2, "-v"), (3, "--verbose")] {
        let said = deploy(&[shown])?;
        assert!(said.contains("    pre-deploy: said v1"), "{shown}: {said}");
        assert_eq!(ran(), count);
    }
    stage.config(&format!("{}hooks_output: {{pre-deploy: verbose}}\n", model::CONFIG))?;
    assert!(deploy(&[])?.contains("    pre-deploy: said v1"), "as the config has it");
    assert!(!deploy(&["-q"])?.contains("said v1"), "-q says otherwise");
    stage.config(model::CONFIG)?;
    for skipped in ["-H", "--skip-hooks", "--skip_hooks"] {
        let said = deploy(&[skipped, "-v"])?;
        assert!(!said.contains("pre-deploy"), "{skipped}: {said}");
        assert_eq!(ran(), 5, "{skipped}");
    }
    Ok(())
}

#[test]
fn setup_with_accessories_is_refused_by_name() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.config(&format!("{CONFIG}accessories: {{db: {{image: \"mysql:8\", host: h1}}}}\n"))?;
    let setup = stage.dhow(&["setup", "-P", "--version", "v1"])?;
    refused(&setup, 1, &["`setup` does not boot accessories yet", "db"]);
    refused(&stage.dhow(&["deploy", "-P", "--version", "v1"])?, 1, &["not enrolled"]);
    Ok(())
}

#[test]
fn a_key_that_is_not_known_is_refused_with_its_place() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.config(&CONFIG.replace("image: shop\n", "imgae: shop\n"))?;
    for command in [&["deploy", "-P", "--version", "v1"][..], &["status"], &["app", "version"]] {
        refused(&stage.dhow(command)?, 1, &["config/deploy.yml:2:1", "imgae"]);
    }
    Ok(())
}

#[test]
fn help_and_the_version_are_there_for_who_tries_them_first() -> Result<()> {
    let stage = Stage::new()?;
    for line in ["-h", "--help", "help", ""] {
        let help = stage.dhow(&line.split_whitespace().collect::<Vec<_>>())?.ok()?;
        for command in [
            "login", "host", "setup", "deploy", "redeploy", "rollback", "app", "status", "rollout",
            "version",
        ] {
            assert!(help.stdout.contains(command), "{line}: {command} is not in\n{}", help.stdout);
        }
    }
    for line in [&["--version"][..], &["version", "--client"]] {
        assert_eq!(stage.dhow(line)?.ok()?.stdout, format!("dhow {}\n", env!("CARGO_PKG_VERSION")));
    }
    Ok(())
}

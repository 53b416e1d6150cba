//! `DHOW_ERB=ruby`: a local Ruby renders what dhow does not evaluate by itself. A stand-in is the Ruby here; it
//! shows what the real one would be given.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "service: shop\nimage: acme/<%= %w[a b].sample %>\nservers: [192.0.2.1]\n\
    registry: {username: u, password: [P]}\nbuilder: {arch: amd64}\n";

/// Renders as if every tag were the destination's name.
const RUBY: &str = "#!/bin/sh\n[ \"$1 $2\" = '-rerb -e' ] || exit 9\n\
    case $3 in *'trim_mode: \"-\"'*) ;; *) exit 8;; esac\n\
    sed \"s/<%=.*%>/${KAMAL_DESTINATION:-none}/\" \"$DHOW_ERB_FILE\"\n";

fn config(folder: &Path, ruby: Option<&str>, erb: Option<&str>, words: &[&str]) -> Output {
    std::fs::write(folder.join("deploy.yml"), CONFIG).expect("a file can be written");
    let over = "labels: {of: <%= x.y %>}\n";
    std::fs::write(folder.join("deploy.staging.yml"), over).expect("a file can be written");
    let programs = folder.join("programs");
    std::fs::create_dir_all(&programs).expect("a folder can be made");
    if let Some(text) = ruby {
        let program = programs.join("ruby");
        std::fs::write(&program, text).expect("a file can be written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("it can be made executable");
    }
    // What the stand-in needs comes after it, so that no Ruby of this machine is found.
    let sed = folder.join("sed-only");
    std::fs::create_dir_all(&sed).expect("a folder can be made");
    let _ = std::os::unix::fs::symlink("/bin/sed", sed.join("sed"));
    let path = format!("{}:{}", programs.display(), sed.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
    command.args(["config", "-c", "deploy.yml", "--version", "v1"]).args(words);
    command
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("DHOW_ERB")
        .envs(erb.map(|erb| ("DHOW_ERB", erb)));
    command.output().expect("it starts")
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(words), "{output:?}");
}

#[test]
fn a_local_ruby_renders_both_files_if_asked_to() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let output = config(folder.path(), Some(RUBY), Some("ruby"), &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(":repository: acme/none\n"), "{output:?}");
    let output = config(folder.path(), Some(RUBY), Some("ruby"), &["-d", "staging"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(":repository: acme/staging\n"), "{output:?}");
}

#[test]
fn without_being_asked_or_without_ruby_it_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let hint = "DHOW_ERB=ruby";
    refused(&config(folder.path(), None, None, &[]), hint);
    refused(&config(folder.path(), None, Some("1"), &[]), hint);
    refused(&config(folder.path(), None, Some("ruby"), &[]), "there is no `ruby`");
    let failing = "#!/bin/sh\nexit 3\n";
    refused(
        &config(folder.path(), Some(failing), Some("ruby"), &[]),
        "it ended with status Some(3)",
    );
    let binary = "#!/bin/sh\nprintf '\\377'\n";
    refused(&config(folder.path(), Some(binary), Some("ruby"), &[]), "not UTF-8 text");
}

/// What Ruby made may be a secret; a place is shown as the file has it.
#[test]
fn excerpts_show_the_file_and_not_what_ruby_made_of_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let ruby = |text: &str| format!("#!/bin/sh\nprintf '%s' '{text}'\n");
    let said = |rendered: &str, place: Option<&str>| {
        let output = config(folder.path(), Some(&ruby(rendered)), Some("ruby"), &[]);
        let said = String::from_utf8(output.stderr.clone()).expect("it is text");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!said.contains("hunter2"), "{said}");
        match place {
            Some(place) => assert!(said.contains(place), "{said}"),
            None => assert!(!said.contains("-->"), "{said}"),
        }
        said
    };
    let place = "--> deploy.yml:2:13\n  |\n2 | image: acme/<%= %w[a b].sample %>\n";
    said("service: shop\nimage: [acme/hunter2]\n", None);
    said("service: shop\nimage: acme/hunter2: x\n", Some(place));
    let rendered = CONFIG.replace("<%= %w[a b].sample %>", "x");
    let wrong = said(&rendered.replace("arch: amd64", "arhc: hunter2"), None);
    assert!(wrong.contains("builder: unknown key: (made by the template)"), "{wrong}");
    let wrong = said(&format!("{rendered}minimum_version: hunter2!\n"), None);
    assert!(wrong.contains("Malformed version number string (made by the template)"), "{wrong}");
}

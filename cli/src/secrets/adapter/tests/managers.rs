//! Password managers: 1Password, LastPass, Bitwarden, Enpass, Passbolt.

use super::*;

const OP: Asked<'_> =
    Asked { adapter: "1password", account: Some("myaccount"), from: None, names: &[], env: &[] };

/// The arguments of `op item get`, with `fields` at the end if there are some.
fn op_get<'a>(item: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["item", "get", item, "--vault", "myvault", "--format", "json"];
    args.extend(["--account", "myaccount"]);
    args.extend(extra);
    args
}

fn op_field(item: &str, section: &str, label: &str, value: &str) -> String {
    format!(
        r#"{{"id":"aaaaaaaaaaaaaaaaaaaaaaaaaa","section":{{"id":"cccccccccccccccccccccccccc","label":"{section}"}},"type":"CONCEALED","label":"{label}","value":"{value}","reference":"op://myvault/{item}/{section}/{label}"}}"#
    )
}

fn signed_in() -> [Expected; 2] {
    [
        says(&["--version"], "2.30.0\n"),
        says(&["account", "get", "--account", "myaccount"], "ID: X\n"),
    ]
}

#[test]
fn one_password_reads_each_item_once() {
    let answer =
        format!("[{},{}]", op_field("myitem", "s", "A", "1"), op_field("myitem", "s", "B", "2 $x"));
    let [version, account] = signed_in();
    let calls = [
        version,
        account,
        says(&op_get("myitem", &["--fields", "label=s.A,label=s.B"]), &answer),
        says(
            &op_get("other item", &["--fields", "label=s2.C"]),
            &op_field("other item", "s2", "C", "3"),
        ),
    ];
    let names: &[&str] = &["myitem/s/A", "other item/s2/C", "myitem/s/B"];
    let asked = Asked { from: Some("op://myvault"), names, ..OP };
    found(
        ask("op", &calls, asked),
        &[
            ("myvault/myitem/s/A", "1"),
            ("myvault/myitem/s/B", "2 $x"),
            ("myvault/other item/s2/C", "3"),
        ],
    );
}

#[test]
fn one_password_means_the_password_of_an_item_without_field() {
    let [version, account] = signed_in();
    let answer = r#"{"id":"password","label":"password","value":"p","reference":"op://myvault/myitem/password"}"#;
    let calls =
        [version, account, says(&op_get("myitem", &["--fields", "label=password"]), answer)];
    found(
        ask("op", &calls, Asked { names: &["op://myvault/myitem"], ..OP }),
        &[("myvault/myitem", "p")],
    );
}

#[test]
fn one_password_without_names_reads_all_fields() {
    let [version, account] = signed_in();
    let empty = r#"{"id":"notesPlain","type":"STRING","label":"notesPlain","reference":"op://myvault/myitem/notesPlain"}"#;
    let answer = format!(
        r#"{{"id":"ucbtiii777","title":"A title","fields":[{},{empty}]}}"#,
        op_field("myitem", "s", "A", "1")
    );
    let calls = [version, account, says(&op_get("myitem", &[]), &answer)];
    let asked = Asked { from: Some("op://myvault/myitem"), ..OP };
    found(ask("op", &calls, asked), &[("myvault/myitem/s/A", "1")]);
    let said = ask("op", &[says(&["--version"], "2")], OP);
    refused(said, "Without names of secrets, --from must be vault/item of 1Password");
}

#[test]
fn one_password_signs_in_and_uses_the_session_it_gets() {
    let signing_in = |token: &'static str| {
        [
            says(&["--version"], "2.30.0"),
            fails(&["account", "get", "--account", "myaccount"]),
            says(&["signin", "--account", "myaccount", "--force", "--raw"], token),
        ]
    };
    let asked = Asked { names: &["myvault/myitem/s/A"], ..OP };
    let answer = op_field("myitem", "s", "A", "1");
    for (token, session) in [("", &[][..]), ("1234567890\n", &["--session", "1234567890"][..])] {
        let extra: Vec<&str> = session.iter().copied().chain(["--fields", "label=s.A"]).collect();
        let calls: Vec<Expected> = signing_in(token)
            .into_iter()
            .chain([says(&op_get("myitem", &extra), &answer)])
            .collect();
        found(ask("op", &calls, asked), &[("myvault/myitem/s/A", "1")]);
    }
    let [version, account, _] = signing_in("");
    let failed = fails(&["signin", "--account", "myaccount", "--force", "--raw"]);
    refused(ask("op", &[version, account, failed], asked), "Failed to login to 1Password");
}

#[test]
fn one_password_that_knows_no_item_or_answers_nonsense() {
    let asked = Asked { names: &["myvault/myitem/s/A", "myvault/myitem/B"], ..OP };
    let args = op_get("myitem", &["--fields", "label=s.A,label=B"]);
    let [version, account] = signed_in();
    refused(
        ask("op", &[version, account, fails(&args)], asked),
        "Could not read s.A, B from myitem in the myvault 1Password vault",
    );
    for answer in ["", "{", "3", r#"[{"value":"secret"}]"#, "\u{1}"] {
        let [version, account] = signed_in();
        let said = ask("op", &[version, account, says(&args, answer)], asked).unwrap_err();
        assert!(said.starts_with("could not understand what `op item` answered"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    refused(
        ask("op", &[says(&["--version"], "2")], Asked { names: &["A"], ..OP }),
        "A names no item of 1Password, as vault/item[/section]/field does",
    );
}

const LASTPASS: Asked<'_> = Asked {
    adapter: "lastpass",
    account: Some("email@example.com"),
    from: None,
    names: &[],
    env: &[],
};
const LASTPASS_STATUS: &[&str] = &["status", "--color", "never"];

fn lastpass_item(fullname: &str, password: &str) -> String {
    format!(
        r#"{{"id":"1234567891234567891","name":"x","fullname":"{fullname}","username":"","password":"{password}","last_modified_gmt":"1724926054","last_touch":"1724926639","group":"","url":"","note":""}}"#
    )
}

#[test]
fn lastpass_shows_all_names_at_once() {
    let status = says(LASTPASS_STATUS, "Logged in as email@example.com.\n");
    let answer =
        format!("[{},{}]", lastpass_item("FOLDER/A", "1"), lastpass_item("FOLDER/B c", "2"));
    let calls = [
        says(&["--version"], "LastPass CLI v1.6.0"),
        status,
        says(&["show", "FOLDER/A", "FOLDER/B c", "--json"], &answer),
    ];
    let asked = Asked { from: Some("FOLDER"), names: &["A", "B c"], ..LASTPASS };
    found(ask("lpass", &calls, asked), &[("FOLDER/A", "1"), ("FOLDER/B c", "2")]);
}

#[test]
fn lastpass_logs_in_when_nobody_or_somebody_else_is() {
    for status in [
        Expected { code: 1, ..says(LASTPASS_STATUS, "Not logged in.\n") },
        says(LASTPASS_STATUS, "Logged in as other@example.com.\n"),
    ] {
        let answer = format!("[{}]", lastpass_item("A", "1"));
        let calls = [
            says(&["--version"], ""),
            status,
            says(&["login", "email@example.com"], "Success"),
            says(&["show", "A", "--json"], &answer),
        ];
        found(ask("lpass", &calls, Asked { names: &["A"], ..LASTPASS }), &[("A", "1")]);
    }
    let calls =
        [says(&["--version"], ""), fails(LASTPASS_STATUS), fails(&["login", "email@example.com"])];
    refused(ask("lpass", &calls, LASTPASS), "Failed to login to LastPass");
}

#[test]
fn lastpass_that_finds_too_little_or_answers_nonsense() {
    let with = |show: Expected| {
        let status = says(LASTPASS_STATUS, "Logged in as email@example.com.");
        let calls = [says(&["--version"], ""), status, show];
        ask("lpass", &calls, Asked { names: &["A", "B", "C"], ..LASTPASS })
    };
    let args = ["show", "A", "B", "C", "--json"];
    let one = format!("[{}]", lastpass_item("A", "1"));
    refused(with(says(&args, &one)), "Could not find B, C in LastPass");
    refused(with(fails(&args)), r#"Could not read ["A", "B", "C"] from LastPass"#);
    for answer in ["Error", "{}", r#"[{"password":"secret"}]"#] {
        let said = with(says(&args, answer)).unwrap_err();
        assert!(said.starts_with("could not understand what `lpass show` answered"), "{said}");
    }
}

const BITWARDEN: Asked<'_> = Asked {
    adapter: "bitwarden",
    account: Some("email@example.com"),
    from: None,
    names: &[],
    env: &[],
};

fn bw_status(status: &str) -> String {
    format!(
        r#"{{"serverUrl":null,"lastSync":"2024-09-04T10:11:12.433Z","userEmail":"email@example.com","userId":"1","status":"{status}"}}"#
    )
}

fn bw_unlocked() -> Vec<Expected> {
    vec![
        says(&["--version"], "2024.8.1"),
        says(&["status"], &bw_status("unlocked")),
        says(&["sync"], "Syncing complete."),
    ]
}

const BW_LOGIN: &str = r#"{"object":"item","type":1,"name":"mypassword","fields":null,"login":{"username":"u","password":"secret123","totp":null}}"#;
const BW_FIELDS: &str = r#"{"object":"item","type":1,"name":"myitem","fields":[{"name":"field1","value":"secret1","type":1},{"name":"field2","value":"blam","type":1}],"login":{"username":null,"password":null}}"#;
const BW_NOTE: &str =
    r#"{"object":"item","type":2,"name":"mynote","notes":"NOTES","secureNote":{"type":0}}"#;

#[test]
fn bitwarden_reads_passwords_and_fields() {
    let mut calls = bw_unlocked();
    calls.push(says(&["get", "item", "mypassword"], BW_LOGIN));
    calls.push(says(&["get", "item", "my item"], BW_FIELDS));
    let names: &[&str] = &["mypassword", "my item/field2", "my item/field1"];
    found(
        ask("bw", &calls, Asked { names, ..BITWARDEN }),
        &[("mypassword", "secret123"), ("my item/field2", "blam"), ("my item/field1", "secret1")],
    );
    // An item and a field of it.
    let mut calls = bw_unlocked();
    let both = BW_FIELDS.replace(r#""password":null"#, r#""password":"pw""#);
    calls.push(says(&["get", "item", "myitem"], &both));
    found(
        ask("bw", &calls, Asked { names: &["myitem", "myitem/field2"], ..BITWARDEN }),
        &[("myitem", "pw"), ("myitem/field2", "blam")],
    );
    let mut calls = bw_unlocked();
    calls.push(says(&["get", "item", "myitem"], BW_FIELDS));
    found(
        ask("bw", &calls, Asked { names: &["myitem"], ..BITWARDEN }),
        &[("myitem/field1", "secret1"), ("myitem/field2", "blam")],
    );
    let mut calls = bw_unlocked();
    calls.push(says(&["get", "item", "myitem"], BW_FIELDS));
    let asked = Asked { from: Some("myitem"), names: &["field1"], ..BITWARDEN };
    found(ask("bw", &calls, asked), &[("myitem/field1", "secret1")]);
}

#[test]
fn bitwarden_without_what_was_asked_for() {
    let with = |get: Expected, name: &'static str| {
        let mut calls = bw_unlocked();
        calls.push(get);
        ask("bw", &calls, Asked { names: &[name], ..BITWARDEN })
    };
    refused(
        with(says(&["get", "item", "mynote"], BW_NOTE), "mynote"),
        "Item mynote is not a login type item and no fields were specified",
    );
    refused(
        with(says(&["get", "item", "myitem"], BW_FIELDS), "myitem/nope"),
        "Could not find field nope in item myitem in Bitwarden",
    );
    refused(with(fails(&["get", "item", "x"]), "x"), "Could not read x from Bitwarden");
    let said = with(says(&["get", "item", "x"], "Not found."), "x").unwrap_err();
    assert_eq!(said, "could not understand what `bw get` answered: JSON was expected");
}

#[test]
fn bitwarden_logs_in_and_unlocks() {
    let session = "BW_SESSION=0987654321";
    let calls = [
        says(&["--version"], ""),
        says(&["status"], &bw_status("unauthenticated")),
        says(&["login", "email@example.com"], "1234567890"),
        says(&["status"], &bw_status("locked")),
        says(&["unlock", "--raw"], "0987654321\n"),
        says(&[session, "status"], &bw_status("unlocked")),
        says(&[session, "sync"], ""),
        says(&[session, "get", "item", "mypassword"], BW_LOGIN),
    ];
    let asked = Asked { names: &["mypassword"], ..BITWARDEN };
    found(ask("bw", &calls, asked), &[("mypassword", "secret123")]);

    let calls = [
        says(&["--version"], ""),
        says(&["status"], &bw_status("locked")),
        fails(&["unlock", "--raw"]),
        says(&["status"], &bw_status("locked")),
    ];
    refused(ask("bw", &calls, asked), "Failed to login to and unlock Bitwarden");
    let mut calls = bw_unlocked();
    calls[2] = fails(&["sync"]);
    refused(ask("bw", &calls, asked), "Failed to sync Bitwarden");
    let calls = [says(&["--version"], ""), says(&["status"], "mac failed.")];
    refused(
        ask("bw", &calls, asked),
        "could not understand what `bw status` answered: JSON was expected",
    );
}

const ENPASS: Asked<'_> =
    Asked { adapter: "enpass", account: None, from: Some("my vault"), names: &[], env: &[] };

#[test]
fn enpass_gives_items_by_title_and_label() {
    let calls = |titles: &[&str], answer: &str| {
        let mut args = vec!["-json", "-vault", "my vault", "show"];
        args.extend(titles);
        [says(&["version"], "enpass-cli v1.6.5"), says(&args, answer)]
    };
    let answer = r#"[{"category":"computer","label":"A","login":"","password":"1","title":"Foo"},{"category":"computer","label":"B","login":"","password":"2","title":"Foo"},{"category":"computer","label":"","login":"","password":"3","title":"Foo"},{"label":"E","password":"","title":"Foo"}]"#;
    let one = Asked { names: &["Foo/A"], ..ENPASS };
    found(ask("enpass-cli", &calls(&["Foo"], answer), one), &[("Foo/A", "1")]);
    let all = Asked { names: &["Foo", "Foo/A"], ..ENPASS };
    found(
        ask("enpass-cli", &calls(&["Foo"], answer), all),
        &[("Foo/A", "1"), ("Foo/B", "2"), ("Foo", "3")],
    );
    let twice = r#"[{"label":"A","password":"1","title":"Foo"},{"label":"A","password":"2","title":"Foo"}]"#;
    refused(ask("enpass-cli", &calls(&["Foo"], twice), one), "Foo/A is present more than once");
    let said = ask("enpass-cli", &calls(&["Foo"], "could not open vault"), one).unwrap_err();
    assert_eq!(said, "could not understand what `enpass-cli -json` answered: JSON was expected");
    let args = ["-json", "-vault", "my vault", "show", "Foo"];
    let failing = [says(&["version"], ""), fails(&args)];
    refused(ask("enpass-cli", &failing, one), "Could not read Foo/A from Enpass");
    refused(
        ask("enpass-cli", &[says(&["version"], "")], Asked { from: None, ..one }),
        "Enpass needs the folder of its vault: --from PATH",
    );
}

const PASSBOLT: Asked<'_> =
    Asked { adapter: "passbolt", account: None, from: None, names: &[], env: &[] };

fn passbolt(rest: Vec<Expected>) -> Vec<Expected> {
    let mut calls = vec![says(&["--version"], "passbolt v0.3.0"), says(&["verify"], "")];
    calls.extend(rest);
    calls
}

fn folder(id: &str, parent: &str, name: &str) -> String {
    format!(
        r#"{{"id":"{id}","folder_parent_id":"{parent}","name":"{name}","created_timestamp":"2025-02-21T19:52:50Z"}}"#
    )
}

fn list_folders(filter: &str, answer: &str) -> Expected {
    says(&["list", "folders", "--filter", filter, "--json"], &format!("[{answer}]"))
}

fn list_resources(filter: &str, folders: &[&str], items: &[(&str, &str)]) -> Expected {
    let mut args = vec!["list", "resources", "--filter", filter];
    for folder in folders {
        args.extend(["--folder", folder]);
    }
    args.extend(["--column", "name", "--column", "password", "--json"]);
    let items: Vec<String> = items
        .iter()
        .map(|(name, password)| format!(r#"{{"name":"{name}","password":"{password}"}}"#))
        .collect();
    says(&args, &format!("[{}]", items.join(",")))
}

#[test]
fn passbolt_reads_names_without_folder() {
    let filter = r#"Name == "A" || Name == "B \"c\"""#;
    let calls = passbolt(vec![list_resources(filter, &[], &[("A", "1"), ("B \\\"c\\\"", "2")])]);
    let asked = Asked { names: &["A", "B \"c\""], ..PASSBOLT };
    found(ask("passbolt", &calls, asked), &[("A", "1"), ("B \"c\"", "2")]);
}

#[test]
fn passbolt_walks_down_the_folders() {
    let calls = passbolt(vec![
        list_folders(
            r#"Name == "proj" || Name == "other""#,
            &format!("{},{}", folder("f1", "", "proj"), folder("f2", "", "other")),
        ),
        list_folders(r#"Name == "sub" && FolderParentID == "f1""#, &folder("f3", "f1", "sub")),
        list_resources(
            r#"(Name == "A" && FolderParentID == "f3") || (Name == "B" && FolderParentID == "f3") || (Name == "C" && FolderParentID == "f2")"#,
            &["f1", "f2", "f3"],
            &[("A", "1"), ("B", "2"), ("C", "3")],
        ),
    ]);
    let asked = Asked { names: &["proj/sub/A", "proj/sub/B", "other/C"], ..PASSBOLT };
    found(ask("passbolt", &calls, asked), &[("A", "1"), ("B", "2"), ("C", "3")]);
}

#[test]
fn passbolt_without_login_folder_or_secret() {
    let asked = Asked { from: Some("proj"), names: &["A"], ..PASSBOLT };
    let calls = [says(&["--version"], ""), fails(&["verify"])];
    refused(ask("passbolt", &calls, asked), "Failed to login to Passbolt");
    let top = r#"Name == "proj""#;
    refused(
        ask("passbolt", &passbolt(vec![list_folders(top, "")]), asked),
        "Could not find the following folders in Passbolt: proj",
    );
    let filter = r#"(Name == "A" && FolderParentID == "f1")"#;
    let folders = || list_folders(top, &folder("f1", "", "proj"));
    refused(
        ask("passbolt", &passbolt(vec![folders(), list_resources(filter, &["f1"], &[])]), asked),
        "Could not find the following secrets in Passbolt: A",
    );
    let unreadable = Expected { code: 1, ..list_resources(filter, &["f1"], &[]) };
    refused(
        ask("passbolt", &passbolt(vec![folders(), unreadable]), asked),
        r#"Could not read ["proj/A"] from Passbolt"#,
    );
    let nonsense = Expected { stdout: "oops".to_owned(), ..folders() };
    refused(
        ask("passbolt", &passbolt(vec![nonsense]), asked),
        "could not understand what `passbolt list` answered: JSON was expected",
    );
    refused(ask("passbolt", &passbolt(vec![]), PASSBOLT), "No secrets given to fetch");
}

//! Cloud services: AWS, Google, Doppler, Bitwarden Secrets Manager.

use super::*;

const AWS: Asked<'_> =
    Asked { adapter: "aws_secrets_manager", account: None, from: None, names: &[], env: &[] };

fn aws(secrets: &str, errors: &str) -> String {
    format!(r#"{{"SecretValues":[{secrets}],"Errors":[{errors}]}}"#)
}

fn aws_secret(name: &str, value: &str) -> String {
    let value = Value::from(value).to_string();
    format!(
        r#"{{"ARN":"arn:aws:secretsmanager:us-east-1:aaaaaaaaaaaa:secret:{name}","Name":"{name}","VersionId":"v","SecretString":{value},"VersionStages":["AWSCURRENT"],"CreatedDate":"2024-01-01T00:00:00.000000"}}"#
    )
}

const AWS_GET: [&str; 3] = ["secretsmanager", "batch-get-secret-value", "--secret-id-list"];

fn aws_args<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    AWS_GET.iter().chain(rest).chain(&["--output", "json"]).copied().collect()
}

#[test]
fn aws_reads_objects_by_key_and_texts_whole() {
    let answer = [
        aws_secret("app/db", r#"{"USER": "u", "PORT": 5432, "TLS": true, "NO": null}"#),
        aws_secret("app/text", "plain text"),
        aws_secret("app/number", "12"),
        aws_secret("app/list", "[1, 2]"),
    ];
    let names = ["app/db", "app/text", "app/number", "app/list", "--profile", "me"];
    let calls = [says(&["--version"], ""), says(&aws_args(&names), &aws(&answer.join(","), ""))];
    let asked = Asked {
        account: Some("me"),
        from: Some("app"),
        names: &["db", "text", "number", "list"],
        ..AWS
    };
    found(
        ask("aws", &calls, asked),
        &[
            ("app/db/USER", "u"),
            ("app/db/PORT", "5432"),
            ("app/db/TLS", "true"),
            ("app/db/NO", "null"),
            ("app/text", "plain text"),
            ("app/number", "12"),
            ("app/list", "[1,2]"),
        ],
    );
}

#[test]
fn aws_errors_are_passed_on() {
    let asked = Asked { names: &["a", "b"], ..AWS };
    let error = |name: &str| {
        format!(
            r#"{{"SecretId":"{name}","ErrorCode":"ResourceNotFoundException","Message":"Secrets Manager can't find the specified secret."}}"#
        )
    };
    let answer = aws(&aws_secret("x", "hidden"), &format!("{},{}", error("a"), error("b")));
    let calls = [says(&["--version"], ""), says(&aws_args(&["a", "b"]), &answer)];
    refused(
        ask("aws", &calls, asked),
        "a: Secrets Manager can't find the specified secret. b: Secrets Manager can't find the specified secret.",
    );
    let calls = [says(&["--version"], ""), fails(&aws_args(&["a", "b"]))];
    refused(ask("aws", &calls, asked), r#"Could not read ["a", "b"] from AWS Secrets Manager"#);
    for answer in ["", "{}", "[]", r#"{"SecretValues":[{"Name":"a"}]}"#] {
        let calls = [says(&["--version"], ""), says(&aws_args(&["a", "b"]), answer)];
        let said = ask("aws", &calls, asked).unwrap_err();
        assert!(said.starts_with("could not understand what `aws secretsmanager`"), "{said}");
    }
}

const GCP: Asked<'_> =
    Asked { adapter: "gcp", account: Some("default"), from: None, names: &[], env: &[] };
const GCP_ACCOUNTS: &str = r#"[{"account":"email@example.com","status":"ACTIVE"}]"#;

fn gcp_logged_in() -> Vec<Expected> {
    vec![
        says(&["--version"], "Google Cloud SDK 490.0.0"),
        says(&["auth", "list", "--format=json"], GCP_ACCOUNTS),
    ]
}

/// `secret123` as Google answers it.
const GCP_SECRET: &str = r#"{"name":"projects/000000000/secrets/mypassword/versions/1","payload":{"data":"c2VjcmV0MTIz","dataCrc32c":"2522602764"}}"#;

#[test]
fn gcp_reads_one_version_of_each_name() {
    let access = |version: &str, rest: &[&str]| {
        let mut args = vec!["secrets", "versions", "access", version];
        args.extend(rest);
        args.push("--format=json");
        says(&args, GCP_SECRET)
    };
    let mut calls = gcp_logged_in();
    calls.push(access("latest", &["--secret=one"]));
    calls.push(access("latest", &["--secret=two"]));
    calls.push(access("latest", &["--secret=three", "--project=p"]));
    calls.push(access("12", &["--secret=four", "--project=p"]));
    let names: &[&str] = &["one", "default/two", "p/three", "p/four/12"];
    let secret = "secret123";
    found(
        ask("gcloud", &calls, Asked { names, ..GCP }),
        &[
            ("default/one", secret),
            ("default/two", secret),
            ("p/three", secret),
            ("p/four", secret),
        ],
    );

    let mut calls = gcp_logged_in();
    let flags = [
        "--secret=one",
        "--project=p",
        "--account=me@example.com",
        "--impersonate-service-account=a@b.c,d@e.f",
    ];
    calls.push(access("5", &flags));
    let account = Some("me@example.com|a@b.c,d@e.f");
    let asked = Asked { account, from: Some("p"), names: &["one/5"], ..GCP };
    found(ask("gcloud", &calls, asked), &[("p/one", secret)]);
}

#[test]
fn gcp_logs_in_when_nobody_is() {
    let list = |answer: &str| says(&["auth", "list", "--format=json"], answer);
    let asked = Asked { names: &["one"], ..GCP };
    let access = ["secrets", "versions", "access", "latest", "--secret=one", "--format=json"];
    let calls = [
        says(&["--version"], ""),
        list("[]"),
        says(&["auth", "login"], ""),
        list(GCP_ACCOUNTS),
        says(&access, GCP_SECRET),
    ];
    found(ask("gcloud", &calls, asked), &[("default/one", "secret123")]);
    let calls = [says(&["--version"], ""), list("[]"), fails(&["auth", "login"]), list("[]")];
    refused(ask("gcloud", &calls, asked), "could not login to gcloud");
}

#[test]
fn gcp_without_secret_or_with_nonsense() {
    let asked = Asked { names: &["p/one"], ..GCP };
    let args =
        ["secrets", "versions", "access", "latest", "--secret=one", "--project=p", "--format=json"];
    let with = |call: Expected| {
        let mut calls = gcp_logged_in();
        calls.push(call);
        ask("gcloud", &calls, asked)
    };
    refused(with(fails(&args)), "Could not read p/one from Google Secret Manager");
    for answer in ["", "[]", r#"{"payload":{}}"#, r#"{"payload":{"data":"*secret*"}}"#] {
        let said = with(says(&args, answer)).unwrap_err();
        assert!(said.starts_with("could not understand what `gcloud secrets` answered"), "{said}");
        assert!(!said.contains("*secret*"), "{said}");
    }
    refused(
        with(says(&args, r#"{"payload":{"data":"//79"}}"#)),
        "p/one is binary data in Google Secret Manager, not text",
    );
}

const DOPPLER: Asked<'_> = Asked {
    adapter: "doppler",
    account: None,
    from: Some("proj/prd"),
    names: &["A", "B"],
    env: &[],
};
const DOPPLER_ANSWER: &str = r#"{"A":{"computed":"1","computedVisibility":"unmasked","note":""},"B":{"computed":"2 $x","computedVisibility":"unmasked","note":""}}"#;

#[test]
fn doppler_reads_a_config() {
    let get = ["secrets", "get", "A", "B", "--json", "-p", "proj", "-c", "prd"];
    let calls = [
        says(&["--version"], "v3.68.0"),
        says(&["me", "--json"], "{}"),
        says(&get, DOPPLER_ANSWER),
    ];
    found(ask("doppler", &calls, DOPPLER), &[("A", "1"), ("B", "2 $x")]);
}

#[test]
fn doppler_needs_no_config_with_a_service_token() {
    let get = ["secrets", "get", "A", "B", "--json"];
    let calls =
        [says(&["--version"], ""), says(&["me", "--json"], "{}"), says(&get, DOPPLER_ANSWER)];
    let asked = Asked { from: None, env: &[("DOPPLER_TOKEN", "dp.st.xxx")], ..DOPPLER };
    found(ask("doppler", &calls, asked), &[("A", "1"), ("B", "2 $x")]);
    let calls = [says(&["--version"], ""), says(&["me", "--json"], "{}")];
    refused(
        ask("doppler", &calls, Asked { from: None, ..DOPPLER }),
        "Missing project or config from '--from=project/config' option",
    );
}

#[test]
fn doppler_logs_in_or_says_that_it_could_not() {
    let get = ["secrets", "get", "A", "B", "--json", "-p", "proj", "-c", "prd"];
    let version = || says(&["--version"], "");
    let calls = [
        version(),
        fails(&["me", "--json"]),
        says(&["login", "-y"], ""),
        says(&get, DOPPLER_ANSWER),
    ];
    found(ask("doppler", &calls, DOPPLER), &[("A", "1"), ("B", "2 $x")]);
    let calls = [version(), fails(&["me", "--json"]), fails(&["login", "-y"])];
    refused(ask("doppler", &calls, DOPPLER), "Failed to login to Doppler");
    let me = || says(&["me", "--json"], "{}");
    refused(
        ask("doppler", &[version(), me(), fails(&get)], DOPPLER),
        r#"Could not read ["proj/prd/A", "proj/prd/B"] from Doppler"#,
    );
    for answer in ["", "[]", r#"{"A":{}}"#] {
        let said = ask("doppler", &[version(), me(), says(&get, answer)], DOPPLER).unwrap_err();
        assert!(said.starts_with("could not understand what `doppler secrets`"), "{said}");
    }
}

const BWS: Asked<'_> =
    Asked { adapter: "bitwarden-sm", account: None, from: None, names: &[], env: &[] };

fn bws(rest: Vec<Expected>) -> Vec<Expected> {
    let mut calls = vec![says(&["--version"], "bws 1.0.0"), says(&["project", "list"], "[]")];
    calls.extend(rest);
    calls
}

fn bws_secret(key: &str, value: &str) -> String {
    format!(
        r#"{{"object":"secret","id":"i","organizationId":"o","projectId":"p","key":"{key}","value":"{value}","note":""}}"#
    )
}

#[test]
fn bitwarden_secrets_manager_reads_all_a_project_or_single_secrets() {
    let both = format!("[{},{}]", bws_secret("A", "1"), bws_secret("B", "2"));
    let expected: &[(&str, &str)] = &[("A", "1"), ("B", "2")];
    let calls = bws(vec![says(&["secret", "list"], &both)]);
    found(ask("bws", &calls, Asked { names: &["all"], ..BWS }), expected);
    let calls = || bws(vec![says(&["secret", "list", "82aeb5bd"], &both)]);
    found(ask("bws", &calls(), Asked { names: &["82aeb5bd/all"], ..BWS }), expected);
    let asked = Asked { from: Some("82aeb5bd"), names: &["all"], ..BWS };
    found(ask("bws", &calls(), asked), expected);
    let calls = bws(vec![
        says(&["secret", "get", "id1"], &bws_secret("A", "1")),
        says(&["secret", "get", "id2"], &bws_secret("B", "2")),
    ]);
    found(ask("bws", &calls, Asked { names: &["id1", "id2"], ..BWS }), expected);
}

#[test]
fn bitwarden_secrets_manager_that_refuses() {
    let calls = [says(&["--version"], ""), fails(&["project", "list"])];
    refused(
        ask("bws", &calls, Asked { names: &["all"], ..BWS }),
        "Could not authenticate to Bitwarden Secrets Manager. Did you set a valid access token?",
    );
    refused(
        ask("bws", &bws(vec![]), BWS),
        "You must specify what to retrieve from Bitwarden Secrets Manager",
    );
    refused(
        ask("bws", &bws(vec![fails(&["secret", "list"])]), Asked { names: &["all"], ..BWS }),
        "Could not read secrets from Bitwarden Secrets Manager",
    );
    let one = Asked { names: &["id1"], ..BWS };
    refused(
        ask("bws", &bws(vec![fails(&["secret", "get", "id1"])]), one),
        "Could not read id1 from Bitwarden Secrets Manager",
    );
    for answer in ["Error:", "[]", r#"{"key":"A"}"#] {
        let calls = bws(vec![says(&["secret", "get", "id1"], answer)]);
        let said = ask("bws", &calls, one).unwrap_err();
        assert!(said.starts_with("could not understand what `bws secret` answered"), "{said}");
    }
}

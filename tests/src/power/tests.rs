use std::fs;

use super::*;

/// A path or text as the tracer writes it.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// A record of a program that works in `/r`: `{…}` stands for a text in hexadecimal numbers.
fn record(lines: &str) -> String {
    let mut text = String::new();
    let mut rest = lines;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').unwrap();
        text.push_str(before);
        text.push_str(&hex(inside));
        rest = after;
    }
    text.push_str(rest);
    text.lines().map(|line| format!("{}\n", line.trim())).collect()
}

/// What is left in the file `name` after a power cut.
fn left(lines: &str, luck: Luck, name: &str) -> Option<String> {
    let disk = replay(Path::new("/r"), &[&record(lines)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    disk.after_power_cut(luck, folder.path()).unwrap();
    fs::read_to_string(folder.path().join(name)).ok()
}

const MADE: &str = r#"7 openat(AT_FDCWD<{/r}>, "{/r/f}", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3<{/r/f}>
    7 write(3<{/r/f}>, "{one}", 3) = 3
    7 openat(AT_FDCWD<{/r}>, "{/r}", O_RDONLY|O_CLOEXEC) = 4<{/r}>
    "#;

fn after(more: &str) -> Option<String> {
    left(&format!("{MADE}{more}"), Luck::None, "f")
}

#[test]
fn bytes_need_their_file_and_a_name_its_folder_to_be_synced() {
    assert_eq!(after(""), None);
    assert_eq!(after("7 fsync(3<{/r/f}>) = 0"), None);
    assert_eq!(after("7 fsync(4<{/r}>) = 0").as_deref(), Some(""));
    assert_eq!(after("7 fdatasync(3<{/r/f}>) = 0\n7 fsync(4<{/r}>) = 0").as_deref(), Some("one"));
    let failed = "7 fsync(3<{/r/f}>) = -1 EIO (Input/output error)\n7 fsync(4<{/r}>) = 0";
    assert_eq!(after(failed).as_deref(), Some(""));
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    let between = r#"7 fsync(4<{/r}>) = 0
        7 fsync(3<{/r/f}> <unfinished ...>
        8 pwrite64(3<{/r/f}>, "{TWO}", 3, 3) = 3
        7 <... fsync resumed>) = 0"#;
    assert_eq!(after(between).as_deref(), Some("one"));
    let next = format!("{between}\n8 fdatasync(3<{{/r/f}}>) = 0");
    assert_eq!(after(&next).as_deref(), Some("oneTWO"));
}

#[test]
fn names_move_and_go_with_their_folder_only() {
    let renamed = r#"7 fsync(3<{/r/f}>) = 0
        7 fsync(4<{/r}>) = 0
        7 rename("{/r/f}", "{/r/g}") = 0"#;
    assert_eq!(after(renamed).as_deref(), Some("one"));
    let synced = format!("{renamed}\n7 fsync(4<{{/r}}>) = 0");
    assert_eq!(after(&synced), None);
    assert_eq!(left(&format!("{MADE}{synced}"), Luck::None, "g").as_deref(), Some("one"));
    assert_eq!(after("7 fsync(4<{/r}>) = 0\n7 unlink(\"{/r/f}\") = 0").as_deref(), Some(""));
}

#[test]
fn a_number_that_is_a_socket_by_now_is_no_file() {
    let socket = r#"7 write(3<{socket:[1]}>, "{XXX}", 3) = 3
        7 writev(3<{/r/f}>, [{iov_base="A", iov_len=1}], 1) = 1"#;
    // Braces of the tracer's own stand in the way of the notation here.
    let socket = socket
        .replace(
            r#"[{iov_base="A", iov_len=1}]"#,
            r#"[iov_base="{tw}", iov_len=2, iov_base="{o}", iov_len=1]"#,
        )
        .replace("1) = 1", "2) = 3");
    let all = format!("{socket}\n7 fsync(3<{{/r/f}}>) = 0\n7 fsync(4<{{/r}}>) = 0");
    assert_eq!(after(&all).as_deref(), Some("onetwo"));
}

#[test]
fn with_luck_some_of_the_rest_is_there() {
    let lines = format!("{MADE}7 pwrite64(3<{{/r/f}}>, \"{{2}}\", 1, 3) = 1\n");
    let outcomes: std::collections::BTreeSet<_> =
        (0..32).map(|seed| left(&lines, Luck::Seed(seed), "f")).collect();
    for expected in [None, Some(""), Some("one"), Some("one2")] {
        assert!(outcomes.contains(&expected.map(str::to_owned)), "{outcomes:?}");
    }
}

#[test]
fn what_is_not_known_is_an_error() {
    let linked = record("7 link(\"{/r/f}\", \"{/r/g}\") = 0");
    assert!(replay(Path::new("/r"), &[&linked]).is_err());
    let elsewhere = record("7 link(\"{/x/f}\", \"{/x/g}\") = 0\n7 +++ exited with 0 +++");
    assert!(replay(Path::new("/r"), &[&elsewhere]).is_ok());
    let before = record("7 openat(AT_FDCWD<{/}>, \"{/r/old}\", O_RDWR) = 3<{/r/old}>");
    assert!(replay(Path::new("/r"), &[&before]).is_err());
}

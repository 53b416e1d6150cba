use std::time::Instant;

use super::*;

fn run(invocation: &Invocation) -> Result<Output, RunError> {
    ProcessRunner::default().run(invocation)
}

#[test]
fn output_and_exit_code_come_back() {
    let output = run(&Invocation::shell("w", "printf 'a b'; exit 3")).unwrap();
    assert_eq!((output.code, output.text("w").unwrap()), (Some(3), "a b"));
    assert!(!output.success());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run(&Invocation::new("no-such-program-here", ["x"])).err().unwrap();
    assert_eq!(error.to_string(), "could not find the program `no-such-program-here`");
}

#[test]
fn a_command_that_hangs_is_ended_and_named() {
    let begin = Instant::now();
    // The shell's child holds the pipe open, so killing the shell alone would not do.
    let hanging = Invocation {
        deadline: Duration::from_millis(300),
        ..Invocation::shell("vault $TOKEN", "sleep 30; echo secret-token")
    };
    let error = run(&hanging).err().unwrap();
    assert!(matches!(error, RunError::TimedOut { .. }));
    assert!(error.to_string().starts_with("`vault $TOKEN` did not end within"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_command_that_closes_its_output_and_hangs_is_ended_too() {
    let hanging = Invocation {
        deadline: Duration::from_millis(300),
        ..Invocation::shell("w", "exec >&-; sleep 30")
    };
    assert!(matches!(run(&hanging), Err(RunError::TimedOut { .. })));
}

/// As documented: a vault's program and a command of a file have a minute.
#[test]
fn a_command_has_a_minute() {
    for invocation in [Invocation::shell("w", "true"), Invocation::new("true", [""; 0])] {
        let error = RunError::TimedOut { shown: "w".into(), deadline: invocation.deadline };
        assert_eq!(error.to_string(), "`w` did not end within 60 s");
    }
}

#[test]
fn endless_output_is_cut_off() {
    let begin = Instant::now();
    let error = run(&Invocation::shell("yes", "yes")).err().unwrap();
    assert_eq!(error.to_string(), "`yes` printed more than 4 MiB");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn binary_output_is_refused() {
    for line in ["printf '\\377\\376'", "printf 'a\\000b'"] {
        let output = run(&Invocation::shell("w", line)).unwrap();
        assert!(matches!(output.text("w"), Err(RunError::Binary { .. })), "{line}");
    }
}

#[test]
fn the_line_is_in_no_argument_and_in_no_variable_of_its_children() {
    let run_shell = |line: &str| {
        let output = run(&Invocation::shell("w", line)).unwrap();
        output.text("w").unwrap().to_owned()
    };
    assert_eq!(run_shell("env | grep -c s3cret"), "0\n");
    // The shell's own arguments, as everybody sees them.
    if cfg!(target_os = "linux") {
        assert_eq!(run_shell("tr '\\0' ' ' </proc/$$/cmdline | grep -c s3cret"), "0\n");
    }
}

#[test]
fn a_shell_line_may_hold_any_syntax() {
    let output = run(&Invocation::shell("w", "f() { echo \"$1 '\"; }\nf \"a  b\" # c")).unwrap();
    assert_eq!(output.text("w").unwrap(), "a  b '\n");
}

#[test]
fn neither_debug_nor_errors_show_a_variable() {
    let run = Invocation::shell("w", "echo s3cret").with_env("V", SecretString::from("t0ken"));
    let shown = format!("{run:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
}

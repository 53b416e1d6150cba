//! The small tools an `exec` in the image can call; there is nothing else in it.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Runs the tool named by the first word.
pub(crate) fn run_tool(words: &[String]) -> ExitCode {
    let (name, args) =
        words.split_first().map_or(("", &[][..]), |(name, args)| (name.as_str(), args));
    let name = name.rsplit('/').next().unwrap_or_default();
    match tool(name, args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tool(name: &str, args: &[String]) -> anyhow::Result<u8> {
    let first = args.first().map(String::as_str);
    match name {
        "true" => {}
        "false" => return Ok(1),
        "exit" => return Ok(first.unwrap_or("0").parse()?),
        "version" => println!("{}", std::env::var("APP_VERSION").unwrap_or_default()),
        "echo" => println!("{}", args.join(" ")),
        "sleep" => {
            let seconds: f64 = first.unwrap_or("0").trim_end_matches('s').parse()?;
            std::thread::sleep(Duration::try_from_secs_f64(seconds)?);
        }
        "env" => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
        }
        "cat" if args.is_empty() => {
            std::io::copy(&mut std::io::stdin(), &mut std::io::stdout())?;
        }
        "cat" => {
            for file in args {
                std::io::stdout().write_all(&std::fs::read(file)?)?;
            }
        }
        "ls" => {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(first.unwrap_or("."))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            println!("{}", names.join("\n"));
        }
        "touch" => {
            for file in args {
                std::fs::OpenOptions::new().create(true).append(true).open(file)?;
            }
        }
        "up" => return up(first.unwrap_or("80").parse()?),
        "healthy" => return Ok(u8::from(!std::path::Path::new("/tmp/healthy").exists())),
        "sh" => return shell(args),
        other => {
            eprintln!("{other}: not found");
            return Ok(127);
        }
    }
    std::io::stdout().flush()?;
    Ok(0)
}

/// 0 when `/up` on this port answers 2xx within 5 s.
fn up(port: u16) -> anyhow::Result<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(u8::from(!answer.starts_with("HTTP/1.1 2")))
}

/// Runs `-c LINE`, or each line of stdin; gives the last status.
fn shell(args: &[String]) -> anyhow::Result<u8> {
    if let Some(flag) = args.first().filter(|flag| flag.ends_with('c') && flag.starts_with('-')) {
        let line = args.get(1).ok_or_else(|| anyhow::anyhow!("{flag} needs a command"))?;
        return Ok(run_line(line).0);
    }
    let mut status = 0;
    for line in std::io::stdin().lock().lines() {
        let (last, leave) = run_line(&line?);
        status = last;
        if leave {
            break;
        }
    }
    Ok(status)
}

/// The status of the last command that ran, and whether it was `exit`.
fn run_line(line: &str) -> (u8, bool) {
    let mut status = 0;
    for all in line.split(';') {
        for command in all.split("&&") {
            let words = split_words(command);
            let Some(name) = words.first() else { continue };
            if name == "exit" {
                return (words.get(1).and_then(|word| word.parse().ok()).unwrap_or(status), true);
            }
            // A process of its own, so that an interrupt or a crash ends only the command.
            status = match Command::new("/sample-app").args(&words).status() {
                Ok(ended) => ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
                Err(error) => {
                    eprintln!("sh: {error}");
                    126
                }
            };
            if status != 0 {
                break;
            }
        }
    }
    (status, false)
}

/// Words between blanks; quotes of both kinds keep blanks.
fn split_words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => (quote, begun) = (Some(c), true),
            None if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            None => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_blanks_together() {
        assert_eq!(split_words("echo 'a  b' \"c\" d\"e f\""), ["echo", "a  b", "c", "de f"]);
    }
}

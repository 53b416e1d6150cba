//! Gets at the text of a config file: from disk, or from a local Ruby.

use std::io;
use std::path::{Path, PathBuf};

use super::super::diagnostic::{Code, Diagnostic, ErrorClass};
use super::super::outside::Outside;
use super::MAX_FILE;

/// Lets a local Ruby render the file, as Kamal does; for templates outside the subset.
pub(super) fn render_by_ruby(
    path: &Path,
    env: &[(String, String)],
    outside: &dyn Outside,
) -> Result<String, Box<Diagnostic>> {
    let absolute = clean(&outside.current_dir().join(path));
    let failed = |cause: String| {
        let message = format!("{} could not be rendered by ruby: {cause}", absolute.display());
        Box::new(Diagnostic::new(Code::Template, message).class(ErrorClass::Runtime))
    };
    let script = "print ERB.new(File.read(ENV.fetch(\"DHOW_ERB_FILE\")), trim_mode: \"-\").result";
    let mut env = env.to_vec();
    env.push(("DHOW_ERB_FILE".into(), absolute.display().to_string()));
    let output = outside
        .shell(&format!("ruby -rerb -e '{script}'"), &env)
        .map_err(|error| failed(error.to_string()))?;
    match (output.status, String::from_utf8(output.stdout)) {
        (Some(0), Ok(text)) => Ok(text),
        (Some(127), _) => Err(failed("there is no `ruby`".into())),
        (Some(0), Err(_)) => Err(failed("the result is not UTF-8 text".into())),
        (status, _) => Err(failed(format!("it ended with status {status:?}"))),
    }
}

/// The text of a file without a byte order mark.
pub(super) fn read_text(path: &Path, outside: &dyn Outside) -> Result<String, Box<Diagnostic>> {
    let absolute = clean(&outside.current_dir().join(path));
    let shown = absolute.display();
    let problem =
        |message: String| Box::new(Diagnostic::new(Code::File, message).class(ErrorClass::Runtime));
    let bytes = outside.read(&absolute, MAX_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let mut problem = problem(format!("Configuration file not found in {shown}"));
            problem.hint = Some("write one with `dhow init`, or name it with `-c`".into());
            problem
        }
        io::ErrorKind::IsADirectory => problem(format!("{shown} is a directory, not a file")),
        io::ErrorKind::PermissionDenied => problem(format!("{shown} may not be read")),
        io::ErrorKind::FileTooLarge => {
            problem(format!("{shown} is larger than {} MiB", MAX_FILE >> 20))
        }
        _ => problem(format!("{shown} cannot be read: {error}")),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..at).unwrap_or_default());
        let (line, column) = (before.split('\n').count(), before.rsplit('\n').next());
        let column = column.map_or(0, |text| text.chars().count()) + 1;
        problem(format!(
            "{shown} is not UTF-8 text: line {line}, column {column} (byte {at}) holds no character"
        ))
    })?;
    if let Some(at) = text.find('\0') {
        return Err(problem(format!("{shown} is not text: byte {at} is zero")));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Removes `.` and `..` by name only, as Ruby's `File.expand_path` does.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

//! Files that go to hosts with the spec: accessory files and error pages.

use std::io;
use std::path::Path;

use dhow_proto::model::document::BlobRef;
use dhow_proto::model::name::AccessoryName;
use dhow_proto::model::spec::ErrorPage;
use dhow_proto::model::template::AccessoryFile;

use super::super::diagnostic::Code;
use super::super::model::{Accessory, PathMount};
use super::{Compiler, TemplateFile};

/// A file larger than this does not belong in a deploy; hosts keep it in memory while it is sent.
const MAX_FILE: u64 = 64 << 20;

/// Folders nested deeper are refused; a link may point to its own parent.
const MAX_DEPTH: usize = 16;

impl Compiler<'_> {
    fn blob(&mut self, bytes: Vec<u8>) -> BlobRef {
        let blob = BlobRef::of(&bytes);
        self.blobs.entry(blob.digest.to_string()).or_insert((blob, bytes));
        blob
    }

    pub(super) fn accessory_files(
        &mut self,
        accessory: &Accessory,
        name: Option<&AccessoryName>,
        path: &str,
    ) -> Vec<AccessoryFile> {
        let mut files = Vec::new();
        for (index, mount) in accessory.files.iter().enumerate() {
            let path = format!("{path}/files/{index}");
            self.file(mount, &mount.local, &mount.remote, name, &path, 0, &mut files);
        }
        files
    }

    #[expect(clippy::too_many_arguments, reason = "one recursion over a folder, private")]
    fn file(
        &mut self,
        mount: &PathMount,
        local: &str,
        remote: &str,
        name: Option<&AccessoryName>,
        path: &str,
        depth: usize,
        files: &mut Vec<AccessoryFile>,
    ) {
        let absolute = self.outside.current_dir().join(local);
        let bytes = match self.outside.read(&absolute, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::IsADirectory && depth < MAX_DEPTH => {
                for entry in self.outside.list(&absolute).unwrap_or_default() {
                    let (local, remote) = (format!("{local}/{entry}"), format!("{remote}/{entry}"));
                    self.file(mount, &local, &remote, name, path, depth + 1, files);
                }
                return;
            }
            Err(error) => {
                let cause = match error.kind() {
                    io::ErrorKind::NotFound => format!("Missing file: {}", absolute.display()),
                    _ => format!("{} cannot be read: {error}", absolute.display()),
                };
                self.report(Code::File, path, cause);
                return;
            }
        };
        let content = match (local.ends_with("erb"), name) {
            (true, Some(accessory)) => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.templates.push(TemplateFile {
                        accessory: accessory.clone(),
                        path: remote.to_owned(),
                        local: local.to_owned(),
                        text,
                    });
                    None
                }
                Err(_) => {
                    self.report(Code::File, path, format!("the template {local} is not text"));
                    return;
                }
            },
            _ => Some(self.blob(bytes)),
        };
        files.push(AccessoryFile {
            path: remote.to_owned(),
            content,
            mode: mount.mode.clone().unwrap_or_else(|| "755".into()),
            owner: mount.owner.clone(),
        });
    }

    /// The pages of `error_pages_path`; `None` where it is not set.
    pub(super) fn error_pages(&mut self) -> Option<Vec<ErrorPage>> {
        let folder = Path::new(self.config.error_pages_path.as_ref()?);
        let absolute = self.outside.current_dir().join(folder);
        let names = self.outside.list(&absolute).unwrap_or_default();
        let mut pages = Vec::new();
        for name in names.into_iter().filter(|name| is_error_page(name)) {
            match self.outside.read(&absolute.join(&name), MAX_FILE) {
                Ok(bytes) => {
                    let content = self.blob(bytes);
                    pages.push(ErrorPage { name, content });
                }
                Err(error) => {
                    self.report(
                        Code::File,
                        "error_pages_path",
                        format!("{name} cannot be read: {error}"),
                    );
                }
            }
        }
        Some(pages)
    }
}

/// `4??.html` or `5??.html`.
fn is_error_page(name: &str) -> bool {
    name.strip_suffix(".html")
        .is_some_and(|code| code.chars().count() == 3 && code.starts_with(['4', '5']))
}

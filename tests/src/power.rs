//! What a power cut leaves of a program's files: its system calls are recorded, and only what was synced counts.
//!
//! In: the record of `strace` of a program and the folder it works in. Out: that folder as a disk would have it after a power
//! cut at any point of the record.
//! Always true: bytes survive for certain when their file was synced after they were written, and a name when its folder
//! was, which is all that POSIX promises. What was not synced is lost, or, as disks may also do, survives in parts.
//!
//! A record is complete up to every effect it caused: the tracer writes a call down before the program goes on. So what the
//! program answered to somebody is in the record that can be read then.

mod call;
mod disk;

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

pub use disk::{Disk, Luck};

use call::Record;

/// The words before a program that have its calls recorded in the file `record`. Without `strace` the program does not start.
#[must_use]
pub fn recorder(record: &Path) -> Vec<OsString> {
    let calls = "trace=openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,\
        rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,lseek";
    let mut words: Vec<OsString> = vec!["strace".into()];
    // All strings in full and as hexadecimal numbers, with the path of each descriptor.
    words.extend(
        ["-f", "--seccomp-bpf", "-y", "-xx", "-s", "16777216", "-e", calls, "-o"]
            .map(OsString::from),
    );
    words.push(record.into());
    // The tracer is the child, so that signals and the exit status are the program's own.
    words.push("-D".into());
    words
}

/// The disk below `folder` after what these records say, one after the other. Calls on other files are passed over.
///
/// # Errors
///
/// When a record has a call that changes a file in a way that is not known here: then nothing can be said.
pub fn replay(folder: &Path, records: &[&str]) -> Result<Disk> {
    let mut disk = Disk::new(folder);
    for text in records {
        let mut record = Record::default();
        for line in text.lines() {
            if let Some(event) = record.line(line)? {
                disk.take(event)?;
            }
        }
        // Descriptors end with their program.
        disk.close_all();
    }
    Ok(disk)
}

#[cfg(test)]
mod tests;

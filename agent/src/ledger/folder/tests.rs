use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ledger::Disk;
use crate::ledger::fake::FakeDisk;

fn open(disk: &FakeDisk) -> Folder {
    Folder::open(Path::new("/f"), Arc::new(disk.clone())).unwrap()
}

#[test]
fn a_full_journal_is_folded_and_loses_nothing() {
    let disk = FakeDisk::new();
    let folder = open(&disk);
    let bytes = vec![7; LARGE - 1];
    for round in 0..20u8 {
        folder.replace("a", &[round]).unwrap();
        folder.replace(&format!("b{round}"), &bytes).unwrap();
    }
    folder.remove("b3").unwrap();
    disk.lose_power(|| false);
    let folder = open(&disk);
    assert_eq!(folder.read("a").unwrap(), [19]);
    assert_eq!(folder.names().unwrap().len(), 20);
    assert!(folder.read("b3").is_err());
    assert_eq!(folder.read("b19").unwrap(), bytes);
}

#[test]
fn many_files_at_once_are_one_wait_and_lose_nothing_where_the_journal_is_full() {
    let disk = FakeDisk::new();
    let folder = open(&disk);
    let bytes = vec![7; LARGE - 1];
    let names: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|n| (&**n, &*bytes)).collect();
    let large = vec![8; LARGE];
    files[20].1 = &large;
    folder.replace_all(&files).unwrap();
    let few: Vec<(&str, &[u8])> = names[..5].iter().map(|n| (&**n, b"few".as_slice())).collect();
    // There is room for them by then: a write and a wait are enough.
    folder.replace("00", b"old").unwrap();
    disk.cut_power_after(2);
    folder.replace_all(&few).unwrap();
    disk.cut_power_after(2);
    let gone = ["07", "none", "08", "09"].map(str::to_owned);
    assert_eq!(folder.remove_all(&gone).unwrap(), 3);
    disk.cut_power_after(u64::MAX);
    disk.lose_power(|| false);
    let folder = open(&disk);
    let length = |n: &String| folder.read(n).ok().map(|bytes| bytes.len());
    let found: Vec<Option<usize>> = names.iter().map(length).collect();
    for (n, found) in found.into_iter().enumerate() {
        let expected = match n {
            0..5 => Some(3),
            7..10 => None,
            20 => Some(LARGE),
            _ => Some(LARGE - 1),
        };
        assert_eq!(found, expected, "{n}");
    }
}

#[test]
fn a_large_file_is_not_undone_by_an_older_record() {
    let disk = FakeDisk::new();
    let folder = open(&disk);
    folder.replace("a", b"small").unwrap();
    folder.replace("a", &vec![1; LARGE]).unwrap();
    disk.lose_power(|| false);
    assert_eq!(open(&disk).read("a").unwrap().len(), LARGE);
}

#[test]
fn a_record_that_failed_does_not_hide_those_after_it() {
    let disk = FakeDisk::new();
    let folder = open(&disk);
    folder.replace("a", b"1").unwrap();
    disk.cut_power_after(1);
    folder.replace("a", b"2").unwrap_err();
    disk.cut_power_after(u64::MAX);
    folder.replace("b", b"3").unwrap();
    disk.lose_power(|| true);
    let folder = open(&disk);
    assert_eq!(folder.read("b").unwrap(), b"3");
    assert_eq!(folder.read("a").unwrap(), b"1");
}

#[test]
fn a_journal_that_could_not_be_cleared_whole_hides_nothing_after_it() {
    for operations in 0..8 {
        let disk = FakeDisk::new();
        let folder = open(&disk);
        folder.replace("a", b"1").unwrap();
        disk.cut_power_after(operations);
        let large = folder.replace("b", &vec![1; LARGE]);
        disk.cut_power_after(u64::MAX);
        folder.replace("c", b"3").unwrap();
        disk.lose_power(|| true);
        let folder = open(&disk);
        assert_eq!(folder.read("c").unwrap(), b"3", "after {operations} operations: {large:?}");
        assert_eq!(folder.read("a").unwrap(), b"1");
    }
}

#[test]
fn on_a_real_disk_it_is_the_same_after_another_open() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Folder::open(dir.path(), Arc::new(Disk)).unwrap();
    let folder = open();
    folder.replace("a", b"1").unwrap();
    folder.replace("b", b"2").unwrap();
    folder.remove("a").unwrap();
    assert_eq!(folder.names().unwrap(), ["b"]);
    drop(folder);
    let folder = open();
    assert_eq!(
        (folder.names().unwrap(), folder.read("b").unwrap()),
        (vec!["b".to_owned()], b"2".to_vec())
    );
    assert!(folder.remove("a").is_err());
}

#[derive(Clone, Debug)]
enum Do {
    Replace(u8, u8, usize),
    ReplaceAll(u8, usize),
    Remove(u8),
    Tidy,
    Restart { opening: u64, kept: u64, operations: u64 },
}

fn step() -> impl Strategy<Value = Do> {
    let size = prop_oneof![9 => 0..200usize, 1 => LARGE - 200..LARGE + 10];
    prop_oneof![
        6 => (0..3u8, any::<u8>(), size).prop_map(|(name, byte, size)| Do::Replace(name, byte, size)),
        2 => (any::<u8>(), 0..LARGE + 10).prop_map(|(byte, size)| Do::ReplaceAll(byte, size)),
        1 => (0..3u8).prop_map(Do::Remove),
        1 => Just(Do::Tidy),
        2 => (0..16u64, any::<u64>(), 0..12u64)
            .prop_map(|(opening, kept, operations)| Do::Restart { opening, kept, operations }),
    ]
}

proptest! {
    #[test]
    fn what_was_acknowledged_survives_and_each_change_is_whole(steps in prop::collection::vec(step(), 1..60)) {
        let disk = FakeDisk::new();
        let mut folder = open(&disk);
        // Of each name what it may hold: the last acknowledged, and what was tried since.
        let mut may: BTreeMap<u8, Vec<Option<Vec<u8>>>> = (0..3).map(|n| (n, vec![None])).collect();
        for step in steps {
            match step {
                Do::Replace(name, byte, size) => {
                    let bytes = vec![byte; size];
                    let done = folder.replace(&name.to_string(), &bytes).is_ok();
                    let may = may.get_mut(&name).unwrap();
                    if done { may.clear(); }
                    may.push(Some(bytes));
                }
                Do::ReplaceAll(byte, size) => {
                    let bytes = vec![byte; size];
                    let names: Vec<String> = (0..3).map(|n| n.to_string()).collect();
                    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (&**n, &*bytes)).collect();
                    let done = folder.replace_all(&files).is_ok();
                    for may in may.values_mut() {
                        if done { may.clear(); }
                        may.push(Some(bytes.clone()));
                    }
                }
                Do::Remove(name) => {
                    let done = folder.remove(&name.to_string()).is_ok();
                    let may = may.get_mut(&name).unwrap();
                    if done { may.clear(); }
                    may.push(None);
                }
                Do::Tidy => drop(folder.tidy()),
                Do::Restart { opening, mut kept, operations } => {
                    let mut keeps = || {
                        kept = kept.rotate_right(1);
                        kept & 1 == 1
                    };
                    disk.lose_power(&mut keeps);
                    // Once more while what is there is brought into order.
                    disk.cut_power_after(opening);
                    drop(Folder::open(Path::new("/f"), Arc::new(disk.clone())));
                    disk.lose_power(&mut keeps);
                    folder = open(&disk);
                    for (name, may) in &mut may {
                        let found = folder.read(&name.to_string()).ok();
                        prop_assert!(may.contains(&found), "{name}: {:?} bytes", found.map(|f| f.len()));
                        *may = vec![found];
                    }
                    disk.cut_power_after(operations);
                }
            }
        }
    }
}

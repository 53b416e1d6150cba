use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn room() -> (tempfile::TempDir, Blobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&folder.path().join("blobs")).unwrap();
    (folder, blobs)
}

fn incoming(folder: &tempfile::TempDir) -> usize {
    fs::read_dir(folder.path().join("blobs/incoming")).unwrap().count()
}

#[tokio::test]
async fn what_is_uploaded_in_pieces_is_read_in_pieces() {
    let (folder, blobs) = room();
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let digest = BlobDigest::of(&bytes);
    assert!(!blobs.has(digest).await.unwrap());
    let mut upload = blobs.upload(digest).await.unwrap();
    for piece in bytes.chunks(7000) {
        upload = upload.write(piece.to_vec()).await.unwrap();
    }
    assert!(!blobs.has(digest).await.unwrap(), "not before it is finished");
    upload.finish().await.unwrap();
    assert!(blobs.has(digest).await.unwrap());
    assert_eq!(blobs.size(digest).await.unwrap(), 200_000);

    let mut read = Vec::new();
    loop {
        let chunk = blobs.read(digest, read.len() as u64, usize::MAX).await.unwrap();
        assert!(chunk.len() <= MAX_CHUNK_BYTES);
        if chunk.is_empty() {
            break;
        }
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, bytes);
    assert_eq!(blobs.load(digest).await.unwrap(), bytes);
    assert_eq!(incoming(&folder), 0);
    let mode = blobs.path(&digest).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[tokio::test]
async fn other_bytes_than_announced_are_refused_and_leave_nothing() {
    let (folder, blobs) = room();
    let announced = BlobDigest::of(b"this");
    let upload = blobs.upload(announced).await.unwrap().write("that").await.unwrap();
    let refused = upload.finish().await;
    assert!(matches!(refused, Err(BlobError::WrongDigest { found, .. })
        if found == BlobDigest::of(b"that")));
    assert!(!blobs.has(announced).await.unwrap());
    assert_eq!(incoming(&folder), 0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (folder, blobs) = room();
    let upload = blobs.upload(BlobDigest::of(b"x")).await.unwrap();
    drop(upload.write("half").await.unwrap());
    assert_eq!(incoming(&folder), 0);
    std::mem::forget(blobs.upload(BlobDigest::of(b"x")).await.unwrap());
    assert_eq!(incoming(&folder), 1, "as after a crash");
    Blobs::open(&folder.path().join("blobs")).unwrap();
    assert_eq!(incoming(&folder), 0);
}

#[tokio::test]
async fn a_blob_over_the_limit_is_refused() {
    let (folder, blobs) = room();
    let mut upload = blobs.upload(BlobDigest::of(b"x")).await.unwrap();
    let piece = Bytes::from(vec![0; 16 * 1024 * 1024]);
    for _ in 0..4 {
        upload = upload.write(piece.clone()).await.unwrap();
    }
    assert!(matches!(upload.write("x").await, Err(BlobError::TooLarge)));
    assert_eq!(incoming(&folder), 0);
}

#[tokio::test]
async fn a_missing_blob_and_an_offset_beyond_the_end_are_said_so() {
    let (_folder, blobs) = room();
    let missing = BlobDigest::of(b"missing");
    assert!(matches!(blobs.read(missing, 0, 1).await, Err(BlobError::Missing(d)) if d == missing));
    assert!(matches!(blobs.load(missing).await, Err(BlobError::Missing(_))));
    let digest = blobs.put("abc").await.unwrap();
    assert!(blobs.read(digest, 3, 10).await.unwrap().is_empty());
    let refused = blobs.read(digest, 4, 10).await;
    assert!(matches!(refused, Err(BlobError::BeyondEnd { offset: 4, size: 3 })));
}

#[tokio::test]
async fn a_blob_damaged_on_disk_is_found_and_can_be_uploaded_again() {
    let (_folder, blobs) = room();
    let digest = blobs.put("abc").await.unwrap();
    fs::write(blobs.path(&digest), "abd").unwrap();
    assert!(matches!(blobs.load(digest).await, Err(BlobError::Damaged(_))));
    assert!(!blobs.has(digest).await.unwrap());
    blobs.put("abc").await.unwrap();
    assert_eq!(blobs.load(digest).await.unwrap(), "abc");
}

#[tokio::test]
async fn two_uploads_of_the_same_blob_do_not_disturb_each_other() {
    let (_folder, blobs) = room();
    let digest = BlobDigest::of(b"same");
    let one = blobs.upload(digest).await.unwrap().write("sa").await.unwrap();
    let two = blobs.upload(digest).await.unwrap().write("same").await.unwrap();
    two.finish().await.unwrap();
    one.write("me").await.unwrap().finish().await.unwrap();
    assert_eq!(blobs.load(digest).await.unwrap(), "same");
}

#[tokio::test]
async fn collection_spares_what_is_named_and_what_is_new() {
    let (_folder, blobs) = room();
    let live = blobs.put("live").await.unwrap();
    let dead = blobs.put("dead").await.unwrap();
    let names = || BTreeSet::from([live]);
    let hour = Duration::from_secs(3600);
    assert_eq!(blobs.gc(names(), hour).await.unwrap(), 0);
    let file = File::options().write(true).open(blobs.path(&dead)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(blobs.has(dead).await.unwrap());
    assert_eq!(blobs.gc(names(), hour).await.unwrap(), 0, "asking for it makes it new");
    assert_eq!(blobs.gc(names(), Duration::ZERO).await.unwrap(), 1);
    assert!(blobs.has(live).await.unwrap() && !blobs.has(dead).await.unwrap());
}

#[tokio::test]
async fn a_blob_that_is_asked_for_while_it_is_collected_is_there_or_said_to_be_missing() {
    let (_folder, blobs) = room();
    for round in 0..200_u32 {
        let bytes = round.to_le_bytes().to_vec();
        let digest = blobs.put(bytes.clone()).await.unwrap();
        let file = File::options().write(true).open(blobs.path(&digest)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let collecting = {
            let blobs = blobs.clone();
            tokio::spawn(async move { blobs.gc(BTreeSet::new(), Duration::from_secs(60)).await })
        };
        // What a client does before it deploys: it asks, and uploads what is missing.
        if !blobs.has(digest).await.unwrap() {
            let upload = blobs.upload(digest).await.unwrap().write(bytes).await.unwrap();
            upload.finish().await.unwrap();
        }
        collecting.await.unwrap().unwrap();
        assert!(blobs.has(digest).await.unwrap(), "round {round}: it was promised and went");
    }
}

#[tokio::test]
async fn an_upload_in_flight_survives_a_collection() {
    let (_folder, blobs) = room();
    let digest = BlobDigest::of(b"slow");
    let upload = blobs.upload(digest).await.unwrap().write("sl").await.unwrap();
    blobs.gc(BTreeSet::new(), Duration::ZERO).await.unwrap();
    upload.write("ow").await.unwrap().finish().await.unwrap();
    assert_eq!(blobs.load(digest).await.unwrap(), "slow");
}

#[tokio::test]
async fn what_was_set_aside_as_damaged_is_collected_too() {
    let (_folder, blobs) = room();
    let digest = blobs.put("abc").await.unwrap();
    fs::write(blobs.path(&digest), "abd").unwrap();
    blobs.load(digest).await.unwrap_err();
    assert_eq!(blobs.gc(BTreeSet::from([digest]), Duration::ZERO).await.unwrap(), 1);
    assert_eq!(fs::read_dir(blobs.path(&digest).parent().unwrap()).unwrap().count(), 0);
}

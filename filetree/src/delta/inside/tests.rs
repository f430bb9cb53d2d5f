use super::*;

fn file(content: &[u8]) -> File {
    File { content: Box::new(content.to_vec()), len: content.len() as u64 }
}

/// Says that its directory is where a record of large numbers says, in a file with room for neither.
fn too_short_for_its_record() -> Vec<u8> {
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend_from_slice(b"PK\x06\x07");
    zip.extend_from_slice(&[0; 16]);
    zip.extend_from_slice(b"PK\x05\x06");
    zip.extend_from_slice(&[0; 8]);
    zip.extend_from_slice(&[0xff; 8]);
    zip.extend_from_slice(&[0; 2]);
    zip
}

#[test]
fn an_archive_that_lies_about_its_directory_has_nothing_inside() {
    let zip = too_short_for_its_record();
    assert!(is_candidate(&zip));
    assert_eq!(locate::streams(&zip, zip.len() as u64).unwrap(), []);
    assert!(look(file(&zip), None, &|| Ok(Store::Memory(1 << 20))).is_none());
}

#[test]
fn a_place_for_plain_text_that_fails_leaves_the_file_as_it_is() {
    // A gzip member with one stored block.
    let gzip =
        [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 1, 0, 0xfe, 0xff, b'x'][..], &[0; 8]].concat();
    let memory = || Ok(Store::Memory(1 << 20));
    assert!(look(file(&gzip), None, &memory).is_some());
    let full = || Err(io::ErrorKind::StorageFull.into());
    assert!(look(file(&gzip), None, &full).is_none());
}

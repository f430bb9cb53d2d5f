//! Streams of the programs that make them, and of those who mean ill.

use std::{
    cell::RefCell,
    io::Write,
    process::{Command, Stdio},
};

use super::*;
use crate::mutate::{Random, try_many};

/// What `program` makes of `input`.
fn made_by(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The stream that gzip makes.
fn gzip(args: &[&str], plain: &[u8]) -> Vec<u8> {
    let file = made_by("gzip", &[&["-nc"], args].concat(), plain);
    file[10..file.len() - 8].to_vec()
}

/// The stream that zlib makes at a level, with so much memory.
fn zlib(level: u8, memory: u8, plain: &[u8]) -> Vec<u8> {
    let program = "import sys, zlib\n\
        level, memory = int(sys.argv[1]), int(sys.argv[2])\n\
        c = zlib.compressobj(level, zlib.DEFLATED, -15, memory)\n\
        sys.stdout.buffer.write(c.compress(sys.stdin.buffer.read()) + c.flush())\n";
    made_by("python3", &["-c", program, &level.to_string(), &memory.to_string()], plain)
}

/// Half text, half noise, repeated now and then: everything that streams have occurs.
fn content(len: usize) -> Vec<u8> {
    const WORDS: [&str; 12] =
        ["fn ", "let ", "match ", "self", ".unwrap()", "{\n", "}\n", "    ", "x", "y", "0", "é"];
    let mut random = Random::new(5);
    let mut content = Vec::new();
    while content.len() < len {
        match random.below(400) {
            0 if content.len() > 3000 => {
                let from = random.below(content.len() - 2000);
                content.extend_from_within(from..from + 3 + random.below(1900));
            }
            1 => content.extend((0..random.below(9000)).map(|_| random.below(256) as u8)),
            2 => content.extend(std::iter::repeat_n(7, random.below(2000))),
            word => content.extend_from_slice(WORDS[word % WORDS.len()].as_bytes()),
        }
    }
    content.truncate(len);
    content
}

thread_local! {
    // What was left undone of one stream must not show in the next.
    static SPLITTER: RefCell<Splitter> = RefCell::default();
    static RECREATOR: RefCell<Recreator> = RefCell::default();
}

fn take_apart(stream: &[u8]) -> Option<(Split, Vec<u8>)> {
    let mut plain = Vec::new();
    let split = SPLITTER.with_borrow_mut(|splitter| {
        splitter.split(&|| stream, u64::MAX, &mut |bytes| {
            plain.extend_from_slice(bytes);
            Ok(())
        })
    });
    Some((split.unwrap()?, plain))
}

/// Feeds plain text in pieces of any length.
fn put_together(plain: &[u8], corrections: Vec<u8>, random: &mut Random) -> io::Result<Vec<u8>> {
    RECREATOR.with_borrow_mut(|recreator| {
        let mut made = Vec::new();
        recreator.start(corrections)?;
        let mut rest = plain;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(1 + random.below(rest.len().min(100_000)));
            recreator.feed(piece, &mut made)?;
            rest = more;
        }
        recreator.finish(&mut made)?;
        Ok(made)
    })
}

fn assert_survives(what: &str, stream: &[u8], plain: &[u8]) -> usize {
    let (split, found) = take_apart(stream).unwrap_or_else(|| panic!("{what} is not described"));
    assert!(found == plain, "{what}: another plain text");
    assert_eq!((split.stored_len, split.plain_len), (stream.len() as u64, plain.len() as u64));
    let len = split.corrections.len();
    let made = put_together(plain, split.corrections, &mut Random::new(9)).unwrap();
    assert!(made == stream, "{what}: another stream");
    let mut inflated = Vec::new();
    let lens = inflate(stream, plain.len() as u64, &mut |bytes| {
        inflated.extend_from_slice(bytes);
        Ok(())
    });
    assert_eq!(lens.unwrap(), (stream.len() as u64, plain.len() as u64));
    assert!(inflated == plain);
    len
}

#[test]
fn what_gzip_and_zlib_make_needs_next_to_no_corrections() {
    let plain = content(700_000);
    for level in 1..=9u8 {
        let stream = gzip(&[&format!("-{level}")], &plain);
        let corrections = assert_survives(&format!("gzip -{level}"), &stream, &plain);
        assert!(
            corrections < stream.len() / 1000,
            "gzip -{level}: {corrections} bytes of {}",
            stream.len()
        );
        for memory in [8, 9] {
            let stream = zlib(level, memory, &plain);
            let what = format!("zlib {level} with {memory}");
            let corrections = assert_survives(&what, &stream, &plain);
            // Levels and sizes of tables that are nearly alike are told apart by a sample alone.
            assert!(corrections < stream.len() / 100, "{what}: {corrections} bytes");
        }
    }
}

#[test]
fn streams_of_every_length_and_kind_survive() {
    let plain = content(300_000);
    for len in [0, 1, 2, 3, 4, 10, 257, 258, 259, 262, 263, 32_505, 32_506, 32_768, 65_274, 65_537]
    {
        assert_survives(&format!("{len} bytes"), &zlib(6, 8, &plain[..len]), &plain[..len]);
        assert_survives(&format!("{len} bytes"), &gzip(&["-1"], &plain[..len]), &plain[..len]);
    }
    assert_survives("stored bytes", &zlib(0, 8, &plain), &plain);
    let mut random = Random::new(3);
    let noise: Vec<u8> = (0..200_000).map(|_| random.below(256) as u8).collect();
    assert_survives("noise", &zlib(6, 8, &noise), &noise);
    assert_survives("zeros", &zlib(9, 8, &vec![0; 3_000_000]), &vec![0; 3_000_000]);
    let rsyncable = gzip(&["--rsyncable"], &plain);
    assert_survives("gzip --rsyncable", &rsyncable, &plain);
}

#[test]
fn what_follows_a_stream_is_not_read() {
    let plain = content(50_000);
    let stream = zlib(6, 8, &plain);
    let longer = [&stream[..], b"something else"].concat();
    let (split, _) = take_apart(&longer).unwrap();
    assert_eq!(split.stored_len, stream.len() as u64);
}

#[test]
fn no_stream_gives_more_than_its_limit() {
    let bomb = zlib(9, 8, &vec![0; 20_000_000]);
    let mut given = 0;
    let inflated = inflate(&bomb[..], 100_000, &mut |bytes| {
        given += bytes.len();
        Ok(())
    });
    assert_eq!(inflated.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(given <= 100_000, "{given} bytes");
    let split = Splitter::new().split(&|| &bomb[..], 100_000, &mut |_| Ok(()));
    assert!(split.is_err() || split.is_ok_and(|split| split.is_none()));
}

#[test]
fn searching_is_bounded_whatever_the_text() {
    // Three bytes that occur everywhere and never go on alike: the longest chains that there are.
    let mut random = Random::new(1);
    let mut plain = Vec::new();
    while plain.len() < 400_000 {
        plain.extend_from_slice(b"abc");
        plain.push(random.below(256) as u8);
    }
    let stream = zlib(9, 8, &plain);
    if let Some((split, plain)) = take_apart(&stream) {
        let made = put_together(&plain, split.corrections, &mut Random::new(2)).unwrap();
        assert!(made == stream);
    }
}

#[test]
fn plain_text_behind_the_last_block_is_not_kept() {
    let empty = zlib(0, 8, b"");
    let corrections = take_apart(&empty).unwrap().0.corrections;
    let mut recreator = Recreator::new();
    recreator.start(corrections).unwrap();
    let mut made = Vec::new();
    let fed = recreator.feed(&vec![0; 10 * token::WINDOW_BYTES], &mut made);
    assert_eq!(fed.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn no_stream_brings_the_reader_down() {
    let plain = content(6_000);
    let streams = [zlib(6, 8, &plain), gzip(&["-1"], &plain), zlib(0, 8, &plain)];
    try_many("deflate stream", 20_000, |random| {
        let mut stream = streams[random.below(streams.len())].clone();
        random.damage(&mut stream);
        let limit = random.below(20_000);
        let mut given = 0;
        let _ = inflate(&stream[..], limit as u64, &mut |bytes| {
            given += bytes.len();
            Ok(())
        });
        assert!(given <= limit);
        let mut plain = Vec::new();
        let split = SPLITTER.with_borrow_mut(|splitter| {
            splitter.split(&|| &stream[..], 20_000, &mut |bytes| {
                plain.extend_from_slice(bytes);
                Ok(())
            })
        });
        // Nobody looks whether what is described is described rightly, so it must be.
        if let Ok(Some(split)) = split {
            let made = put_together(&plain, split.corrections, random).unwrap();
            assert!(made == stream[..split.stored_len as usize]);
        }
    });
}

#[test]
fn no_corrections_bring_a_mirror_down() {
    let plain = content(6_000);
    let apart = |stream: Vec<u8>| take_apart(&stream).unwrap().0.corrections;
    let own_codes = apart(gzip(&["--rsyncable", "-1"], &content(60_000)));
    let sound = [
        apart(zlib(6, 8, &plain)),
        apart(zlib(9, 9, &plain)),
        apart(zlib(0, 8, &plain)),
        own_codes,
    ];
    try_many("corrections", 20_000, |random| {
        let mut corrections = sound[random.below(sound.len())].clone();
        random.damage(&mut corrections);
        let text = &plain[..random.below(plain.len() + 1)];
        let blocks = corrections.len() as u64;
        if let Ok(made) = put_together(text, corrections, random) {
            // A token is at most 48 bits, codes at most a kilobyte for each block.
            assert!(made.len() as u64 <= 6 * text.len() as u64 + 1100 * blocks + 64);
        }
    });
}

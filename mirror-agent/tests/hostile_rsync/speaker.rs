//! A small rsync daemon of protocol 29 that can do everything that an rsync daemon never should.
//!
//! It speaks just enough to send a list and files to the real client: greeting, module, arguments,
//! seed, rules, list, answers, goodbye. [`Play`] says where it lies. With its defaults it is honest,
//! which is the proof that what is refused otherwise is the lie and not the accent.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A moment of the dialog, each after the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    Accepted,
    Greeted,
    ModuleOpened,
    Seeded,
    ListBegun,
    ListSent,
    AnswerBegun,
    HalfOfFile,
    FileSent,
    PhasesDone,
}

impl Moment {
    pub(crate) const ALL: [Self; 10] = [
        Self::Accepted,
        Self::Greeted,
        Self::ModuleOpened,
        Self::Seeded,
        Self::ListBegun,
        Self::ListSent,
        Self::AnswerBegun,
        Self::HalfOfFile,
        Self::FileSent,
        Self::PhasesDone,
    ];
}

/// What happens at a moment instead of going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The connection ends.
    Cut,
    /// Nothing comes any more.
    Silence,
    /// A byte that means nothing comes now and then (a message without content).
    Trickle,
}

/// An entry of the list, as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) size: i64,
    pub(crate) target: Option<Vec<u8>>,
}

pub(crate) const DIR: u32 = 0o040_755;
pub(crate) const FILE: u32 = 0o100_644;

impl Item {
    pub(crate) fn file(name: impl AsRef<[u8]>, size: i64) -> Self {
        Self { name: name.as_ref().into(), mode: FILE, size, target: None }
    }

    pub(crate) fn dir(name: impl AsRef<[u8]>) -> Self {
        Self { name: name.as_ref().into(), mode: DIR, size: 4096, target: None }
    }

    pub(crate) fn link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let target = Some(target.as_ref().to_vec());
        Self { name: name.as_ref().into(), mode: 0o120_777, size: 1, target }
    }

    pub(crate) fn of_mode(name: impl AsRef<[u8]>, mode: u32) -> Self {
        Self { mode, ..Self::file(name, 0) }
    }

    /// On the wire; with its target where the client asked for those.
    fn bytes(&self, with_links: bool) -> Vec<u8> {
        let mut out = vec![LONG_NAME];
        out.extend(int(self.name.len() as i32));
        out.extend(&self.name);
        out.extend(long(self.size));
        out.extend(int(1_700_000_000));
        out.extend(int(self.mode as i32));
        if let Some(target) = self.target.as_ref().filter(|_| with_links) {
            out.extend(int(target.len() as i32));
            out.extend(target);
        }
        out
    }
}

/// What the daemon says; honest by default, with the files of [`Play::files`].
#[derive(Debug, Clone)]
pub(crate) struct Play {
    pub(crate) greeting: Vec<u8>,
    /// Instead of `@RSYNCD: OK`.
    pub(crate) opening: Vec<u8>,
    /// Names and contents: what is listed and sent.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Instead of the list that follows from the files.
    pub(crate) items: Option<Vec<Item>>,
    /// What a listing has besides, and a transfer has not.
    pub(crate) listed: Vec<Item>,
    /// Instead of a list at all.
    pub(crate) raw_list: Option<Vec<u8>>,
    /// Names without end.
    pub(crate) endless_names: bool,
    /// Errors that the list confesses to.
    pub(crate) list_errors: i32,
    /// Frames that come before the list, whatever they mean: code and content.
    pub(crate) messages: Vec<(u8, Vec<u8>)>,
    pub(crate) end: Option<(Moment, End)>,
    /// What an answer calls the file that was asked for.
    pub(crate) answer_as: Option<i32>,
    /// Instead of the file's tokens.
    pub(crate) tokens: Option<Vec<u8>>,
    /// Content without end.
    pub(crate) endless_content: bool,
    pub(crate) wrong_checksum: bool,
    /// Instead of the echo of the client's sums.
    pub(crate) sums: Option<[i32; 4]>,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            greeting: b"@RSYNCD: 29.0\n".to_vec(),
            opening: b"@RSYNCD: OK\n".to_vec(),
            files: Vec::new(),
            items: None,
            listed: Vec::new(),
            raw_list: None,
            endless_names: false,
            list_errors: 0,
            messages: Vec::new(),
            end: None,
            answer_as: None,
            tokens: None,
            endless_content: false,
            wrong_checksum: false,
            sums: None,
        }
    }
}

/// What is played to the next who connects.
pub(crate) type Stage = Arc<Mutex<Play>>;

/// Plays for everyone who connects, until the test ends; gives the port.
pub(crate) fn start(play: Play) -> u16 {
    start_on(&Arc::new(Mutex::new(play)))
}

/// [`start`], of a play that may change.
pub(crate) fn start_on(stage: &Stage) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Arc::clone(stage);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let play = Arc::new(stage.lock().unwrap().clone());
            thread::spawn(move || {
                // A client that goes away is what is hoped for.
                let mut dialog = Dialog { stream, play };
                dialog.hold().ok();
                dialog.stream.shutdown(Shutdown::Both).ok();
            });
        }
    });
    port
}

const LONG_NAME: u8 = 1 << 6;
const TRANSFER: u16 = 1 << 15;
const BASIS_FOLLOWS: u16 = 1 << 11;
const NAME_FOLLOWS: u16 = 1 << 12;
const DONE: i32 = -1;
const SEED: i32 = 7;

fn int(n: i32) -> [u8; 4] {
    n.to_le_bytes()
}

fn long(n: i64) -> Vec<u8> {
    match i32::try_from(n) {
        Ok(small) if small >= 0 => int(small).to_vec(),
        _ => [&int(-1)[..], &n.to_le_bytes()].concat(),
    }
}

struct Dialog {
    stream: TcpStream,
    play: Arc<Play>,
}

impl Dialog {
    fn hold(&mut self) -> io::Result<()> {
        let play = Arc::clone(&self.play);
        self.at(Moment::Accepted)?;
        self.stream.write_all(&play.greeting)?;
        self.at(Moment::Greeted)?;
        self.line()?;
        self.line()?;
        self.stream.write_all(&play.opening)?;
        self.at(Moment::ModuleOpened)?;
        let mut args = Vec::new();
        loop {
            let arg = self.line()?;
            if arg.is_empty() {
                break;
            }
            args.push(arg);
        }
        self.stream.write_all(&int(SEED))?;
        self.at(Moment::Seeded)?;
        while let len @ 1.. = self.int()? {
            self.skip(len as usize)?;
        }
        let has = |wanted: &str| args.iter().any(|arg| arg.starts_with(wanted.as_bytes()));
        if has("--files-from") {
            while !self.name()?.is_empty() {}
        }
        for (code, content) in &play.messages {
            self.frame(*code, content)?;
        }
        // In the first bundle of short options, before what the client can do.
        let has_letter = |letter: u8| {
            let is_short = |arg: &&Vec<u8>| arg.starts_with(b"-") && !arg.starts_with(b"--");
            let letters = |arg: &Vec<u8>| arg.split(|b| *b == b'.').next().map(<[u8]>::to_vec);
            args.iter().filter(is_short).filter_map(letters).any(|bundle| bundle.contains(&letter))
        };
        if has_letter(b'z') {
            // As daemons do that spare their processors; what follows here is never compressed.
            return self.frame(3, b"The server is configured to refuse --compress (-z)\n");
        }
        // With `-n` nothing is transferred.
        let is_dry = has_letter(b'n');
        let asked = self.list(has_letter(b'l'), is_dry)?;
        self.answer(&asked, is_dry)?;
        self.at(Moment::PhasesDone)?;
        // Totals, as no test cares for them; then the client's goodbye.
        self.data(&[0; 20])?;
        self.int()?;
        Ok(())
    }

    fn list(&mut self, with_links: bool, is_dry: bool) -> io::Result<Vec<Vec<u8>>> {
        let play = Arc::clone(&self.play);
        self.at(Moment::ListBegun)?;
        if let Some(raw) = &play.raw_list {
            self.data(raw)?;
            self.skip(usize::MAX)?;
        }
        if play.endless_names {
            for n in 0_u64.. {
                let item = Item::file(format!("{n:0200}"), 1);
                self.data(&item.bytes(with_links))?;
            }
        }
        let mut items = play.items.clone().unwrap_or_else(|| {
            let files = play.files.iter();
            let files = files.map(|(name, content)| Item::file(name, content.len() as i64));
            files.collect()
        });
        items.extend(play.listed.iter().filter(|_| is_dry).cloned());
        let mut list: Vec<u8> = items.iter().flat_map(|item| item.bytes(with_links)).collect();
        list.push(0);
        list.extend(int(play.list_errors));
        self.data(&list)?;
        self.at(Moment::ListSent)?;
        // The client sorts what it got and speaks in numbers of that order; here all lists are
        // written in an order that is its own.
        Ok(items.into_iter().map(|item| item.name).collect())
    }

    fn answer(&mut self, names: &[Vec<u8>], is_dry: bool) -> io::Result<()> {
        let play = Arc::clone(&self.play);
        let mut phases = 0;
        while phases < 3 {
            let index = self.int()?;
            if index == DONE {
                phases += 1;
                self.data(&int(DONE))?;
                continue;
            }
            let mut flags = [0; 2];
            self.stream.read_exact(&mut flags)?;
            let bits = u16::from_le_bytes(flags);
            let mut head = [&int(play.answer_as.unwrap_or(index))[..], &flags].concat();
            if bits & BASIS_FOLLOWS != 0 {
                head.push(self.byte()?);
            }
            if bits & NAME_FOLLOWS != 0 {
                let len = self.byte()?;
                head.push(len);
                for _ in 0..len {
                    head.push(self.byte()?);
                }
            }
            if bits & TRANSFER == 0 || is_dry {
                self.data(&head)?;
                self.at(Moment::AnswerBegun)?;
                continue;
            }
            let mut sums = [0; 4];
            for sum in &mut sums {
                *sum = self.int()?;
            }
            self.skip(sums[0] as usize * (4 + sums[2] as usize))?;
            head.extend(play.sums.unwrap_or(sums).iter().flat_map(|n| int(*n)));
            self.data(&head)?;
            self.at(Moment::AnswerBegun)?;
            let name = usize::try_from(index).ok().and_then(|at| names.get(at));
            let find =
                |(file, _): &&(String, Vec<u8>)| Some(file.as_bytes()) == name.map(|n| &n[..]);
            let content = play.files.iter().find(find).map_or(&b"?"[..], |(_, content)| content);
            self.send(content)?;
        }
        Ok(())
    }

    fn send(&mut self, content: &[u8]) -> io::Result<()> {
        let play = Arc::clone(&self.play);
        if let Some(tokens) = &play.tokens {
            self.data(tokens)?;
            return self.skip(usize::MAX);
        }
        let piece = vec![b'x'; 32 << 10];
        while play.endless_content {
            self.data(&[&int(piece.len() as i32)[..], &piece].concat())?;
        }
        let (first, second) = content.split_at(content.len() / 2);
        for part in [first, second] {
            for piece in part.chunks(32 << 10) {
                self.data(&[&int(piece.len() as i32)[..], piece].concat())?;
            }
            if part.len() == first.len() {
                self.at(Moment::HalfOfFile)?;
            }
        }
        self.data(&int(0))?;
        let mut sum = md4(&[&int(SEED)[..], content].concat());
        sum[0] ^= u8::from(play.wrong_checksum);
        self.data(&sum)?;
        self.at(Moment::FileSent)
    }

    /// Ends here, if this is where the play ends.
    fn at(&mut self, moment: Moment) -> io::Result<()> {
        let Some((when, end)) = self.play.end else { return Ok(()) };
        if when != moment {
            return Ok(());
        }
        match end {
            End::Cut => {}
            End::Silence => self.skip(usize::MAX)?,
            End::Trickle => {
                const NOTHING: u8 = 42;
                loop {
                    let nothing = (u32::from(NOTHING + BASE) << 24).to_le_bytes();
                    for byte in nothing {
                        self.stream.write_all(&[byte])?;
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(60_000).try_for_each(|piece| self.frame(0, piece))
    }

    fn frame(&mut self, code: u8, content: &[u8]) -> io::Result<()> {
        let head = (u32::from(code + BASE) << 24) | content.len() as u32;
        self.stream.write_all(&[&head.to_le_bytes()[..], content].concat())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn int(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes)?;
        Ok(i32::from_le_bytes(bytes))
    }

    fn until(&mut self, end: u8) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                byte if byte == end => return Ok(line),
                byte => line.push(byte),
            }
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        self.until(b'\n')
    }

    fn name(&mut self) -> io::Result<Vec<u8>> {
        self.until(0)
    }

    fn skip(&mut self, len: usize) -> io::Result<()> {
        io::copy(&mut (&mut self.stream).take(len as u64), &mut io::sink()).map(drop)
    }
}

/// What the code of a frame is counted from.
const BASE: u8 = 7;

/// The sum that protocol 29 ends a file with (RFC 1320).
fn md4(message: &[u8]) -> [u8; 16] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_le_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks(64) {
        let words: Vec<u32> =
            block.chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..48 {
            let (round, at) = (step / 16, step % 16);
            let (mix, constant, word, turns) = match round {
                0 => ((b & c) | (!b & d), 0, at, [3, 7, 11, 19]),
                1 => {
                    let mix = (b & c) | (b & d) | (c & d);
                    (mix, 0x5a82_7999, at % 4 * 4 + at / 4, [3, 5, 9, 13])
                }
                _ => {
                    let order = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];
                    (b ^ c ^ d, 0x6ed9_eba1, order[at], [3, 9, 11, 15])
                }
            };
            let sum = a.wrapping_add(mix).wrapping_add(words[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(turns[at % 4]), b, c);
        }
        for (whole, part) in state.iter_mut().zip([a, b, c, d]) {
            *whole = whole.wrapping_add(part);
        }
    }
    let mut out = [0; 16];
    for (to, word) in out.chunks_mut(4).zip(state) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    out
}

#[test]
fn the_speaker_sums_as_the_standard_does() {
    let hex = |bytes: [u8; 16]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(md4(b"")), "31d6cfe0d16ae931b73c59d7e0c089c0");
    assert_eq!(hex(md4(b"abc")), "a448017aaf21d8525fc10ae87aa6729d");
}

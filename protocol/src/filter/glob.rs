//! Wildcard patterns, matched in time linear in the name.
//!
//! A filter comes from an admin or, as a rule file, from an upstream, and it is tried on names
//! that anybody may have chosen. A backtracking matcher can be driven into seconds per name with
//! `*a*a*a*b`; this one cannot. A pattern is compiled to a set of states, one bit each, and all
//! states advance together over each byte of the name: `bytes × ⌈tokens / 64⌉` steps, always.
//!
//! The wildcards are rsync's, on bytes: `?` one byte but `/`; `*` any bytes but `/`; two or more
//! `*` any bytes; `[...]` one byte of a set, never `/`; `\` makes the next byte literal.

use std::collections::HashMap;

/// Longest pattern, in bytes: the longest that rsync takes.
pub(super) const MAX_PATTERN: usize = 4095;

/// Words of state that the longest pattern needs.
const MAX_WORDS: usize = (MAX_PATTERN + 1).div_ceil(64);

/// Which bytes one token takes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ByteSet([u64; 4]);

impl ByteSet {
    const EMPTY: Self = Self([0; 4]);

    fn single(byte: u8) -> Self {
        let mut set = Self::EMPTY;
        set.insert(byte);
        set
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] &= !(1 << (byte & 63));
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn inverted(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// The byte, when there is only one.
    fn only(&self) -> Option<u8> {
        let mut bytes = (0..=255).filter(|&byte| self.contains(byte));
        bytes.next().filter(|_| bytes.next().is_none())
    }
}

/// A star, as the loop of the state before a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Star {
    None,
    /// `*`: any bytes but `/`.
    Flat,
    /// `**`: any bytes.
    Deep,
}

/// The tokens of a pattern: `stars[i]` stands before `takes[i]`, and one more at the end.
struct Tokens {
    takes: Vec<ByteSet>,
    stars: Vec<Star>,
}

impl Tokens {
    /// `None` when the pattern is malformed, which in rsync means that it matches nothing.
    fn read(pattern: &[u8]) -> Option<Self> {
        let mut tokens = Self { takes: Vec::new(), stars: vec![Star::None] };
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            match byte {
                b'*' => {
                    let run = pattern[at..].iter().take_while(|&&b| b == b'*').count();
                    at += run;
                    tokens.star(if run > 0 { Star::Deep } else { Star::Flat });
                }
                b'?' => {
                    let mut any = ByteSet::EMPTY.inverted();
                    any.remove(b'/');
                    tokens.take(any);
                }
                b'[' => {
                    let (set, end) = read_class(pattern, at)?;
                    tokens.take(set);
                    at = end;
                }
                b'\\' => {
                    tokens.take(ByteSet::single(*pattern.get(at)?));
                    at += 1;
                }
                _ => tokens.take(ByteSet::single(byte)),
            }
        }
        Some(tokens)
    }

    fn take(&mut self, set: ByteSet) {
        self.takes.push(set);
        self.stars.push(Star::None);
    }

    fn star(&mut self, star: Star) {
        if let Some(last) = self.stars.last_mut() {
            *last = star;
        }
    }
}

/// Reads a class whose `[` is before `at`; returns the set and the position after its `]`.
fn read_class(pattern: &[u8], mut at: usize) -> Option<(ByteSet, usize)> {
    let mut set = ByteSet::EMPTY;
    let inverted = matches!(pattern.get(at)?, b'!' | b'^');
    at += usize::from(inverted);
    // What a following `-` would start a range from: nothing at the start, after a range or a name.
    let mut from = None;
    let mut first = true;
    loop {
        let byte = *pattern.get(at)?;
        match byte {
            b']' if !first => {
                at += 1;
                break;
            }
            b'-' if from.is_some() && !matches!(pattern.get(at + 1)?, b']') => {
                let mut end = pattern[at + 1];
                at += 2;
                if end == b'\\' {
                    end = *pattern.get(at)?;
                    at += 1;
                }
                for byte in from.take().into_iter().flat_map(|start| start..=end) {
                    set.insert(byte);
                }
            }
            b'[' if pattern.get(at + 1) == Some(&b':') => {
                let name = at + 2;
                let end = name + pattern[name..].iter().position(|&b| b == b']')?;
                if end > name && pattern[end - 1] == b':' {
                    insert_named(&mut set, &pattern[name..end - 1])?;
                    from = None;
                    at = end + 1;
                } else {
                    set.insert(b'[');
                    from = Some(b'[');
                    at += 1;
                }
            }
            b'\\' => {
                let byte = *pattern.get(at + 1)?;
                set.insert(byte);
                from = Some(byte);
                at += 2;
            }
            _ => {
                set.insert(byte);
                from = Some(byte);
                at += 1;
            }
        }
        first = false;
    }
    if inverted {
        set = set.inverted();
    }
    set.remove(b'/');
    Some((set, at))
}

fn insert_named(set: &mut ByteSet, name: &[u8]) -> Option<()> {
    let is: fn(&u8) -> bool = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |b| matches!(b, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |b| matches!(b, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |b| matches!(b, b'\t'..=b'\r' | b' '),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    };
    (0..=255).filter(is).for_each(|byte| set.insert(byte));
    Some(())
}

/// A compiled pattern.
#[derive(Clone)]
pub(super) enum Glob {
    /// Malformed: matches nothing.
    Never,
    /// One star between two literals (`*.iso`, `linux-*`, `a-*.rpm`): no states are needed.
    Around { prefix: Box<[u8]>, suffix: Box<[u8]>, deep: bool },
    /// Anything else.
    States(Box<States>),
}

/// The bit-parallel automaton: bit `i` is set when the first `i` tokens have been taken.
#[derive(Clone)]
pub(super) struct States {
    words: usize,
    /// Which row of `rows` a byte has; most bytes share one.
    row: Box<[u8; 256]>,
    /// `rows[row * words + word]`: the states whose next token takes such a byte.
    rows: Box<[u64]>,
    /// States that stay over a byte that is not `/`.
    flat: Box<[u64]>,
    /// States that stay over any byte.
    deep: Box<[u64]>,
    /// Index of the final state.
    last: usize,
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
}

/// What a name is wrapped in before it is compared, and where a match may begin.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// A `/` is put before the name.
    pub(super) slash_before: bool,
    /// A `/` is put after the name.
    pub(super) slash_after: bool,
    /// The match may begin after any `/`, not only at the start.
    pub(super) floating: bool,
}

impl Glob {
    /// Compiles the wildcards of `pattern`, which is at most [`MAX_PATTERN`] bytes long.
    pub(super) fn compile(pattern: &[u8]) -> Self {
        if pattern.len() > MAX_PATTERN {
            return Self::Never;
        }
        let Some(tokens) = Tokens::read(pattern) else {
            return Self::Never;
        };
        let literal = |from: usize, to: usize| -> Option<Box<[u8]>> {
            tokens.takes[from..to].iter().map(ByteSet::only).collect()
        };
        let mut stars = (0..tokens.stars.len()).filter(|&i| tokens.stars[i] != Star::None);
        if let (Some(at), None) = (stars.next(), stars.next())
            && let (Some(prefix), Some(suffix)) = (literal(0, at), literal(at, tokens.takes.len()))
        {
            return Self::Around { prefix, suffix, deep: tokens.stars[at] == Star::Deep };
        }
        Self::States(Box::new(States::new(&tokens)))
    }

    /// Whether a name that begins with `byte` may match.
    pub(super) fn may_begin_with(&self, byte: u8) -> bool {
        match self {
            Self::Never => false,
            Self::Around { prefix, .. } => prefix.first().is_none_or(|&first| first == byte),
            Self::States(states) => states.stays(0) || states.takes(byte)[0] & 1 == 1,
        }
    }

    /// Whether a name that ends with `byte` may match.
    pub(super) fn may_end_with(&self, byte: u8) -> bool {
        match self {
            Self::Never => false,
            Self::Around { suffix, .. } => suffix.last().is_none_or(|&last| last == byte),
            Self::States(states) => match states.last.checked_sub(1) {
                Some(at) if !states.stays(states.last) => {
                    states.takes(byte)[at / 64] >> (at % 64) & 1 == 1
                }
                _ => true,
            },
        }
    }

    /// Whether the whole of `name` matches.
    pub(super) fn matches(&self, name: &[u8], frame: Frame) -> bool {
        match self {
            Self::Never => false,
            Self::Around { prefix, suffix, deep } if frame == Frame::default() => {
                name.len() >= prefix.len() + suffix.len()
                    && name.ends_with(suffix)
                    && name.starts_with(prefix)
                    && (*deep || !name[prefix.len()..name.len() - suffix.len()].contains(&b'/'))
            }
            Self::Around { prefix, suffix, deep } => {
                around_framed(prefix, suffix, *deep, name, frame)
            }
            Self::States(states) => states.matches(name, frame),
        }
    }
}

/// One star in a frame: tries each place where the prefix may begin.
fn around_framed(prefix: &[u8], suffix: &[u8], deep: bool, name: &[u8], frame: Frame) -> bool {
    let mut text = Vec::with_capacity(name.len() + 2);
    text.extend(frame.slash_before.then_some(b'/'));
    text.extend_from_slice(name);
    text.extend(frame.slash_after.then_some(b'/'));
    if !text.ends_with(suffix) {
        return false;
    }
    // The part that the star takes ends at `end`; a flat star takes nothing from before the last `/`.
    let end = text.len() - suffix.len();
    let earliest = match text[..end].iter().rposition(|&b| b == b'/') {
        Some(slash) if !deep => slash + 1,
        _ => 0,
    };
    let fits = |start: usize| {
        let after = start + prefix.len();
        after <= end && after >= earliest && text[start..].starts_with(prefix)
    };
    fits(0) || frame.floating && text.iter().enumerate().any(|(at, &b)| b == b'/' && fits(at + 1))
}

impl States {
    /// The automaton of a wildcard pattern; `None` when it is malformed.
    pub(super) fn of_pattern(pattern: &[u8]) -> Option<Self> {
        Tokens::read(pattern).map(|tokens| Self::new(&tokens))
    }

    /// The automaton of a literal.
    pub(super) fn of_literal(literal: &[u8]) -> Self {
        let takes = literal.iter().map(|&byte| ByteSet::single(byte)).collect();
        Self::new(&Tokens { takes, stars: vec![Star::None; literal.len() + 1] })
    }

    /// Words of state.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// How many slashes the pattern takes where none of its stars does.
    pub(super) fn slashes(&self) -> usize {
        self.takes(b'/').iter().map(|word| word.count_ones() as usize).sum()
    }

    /// What tells one byte from another for this pattern.
    pub(super) fn takes(&self, byte: u8) -> &[u64] {
        &self.rows[usize::from(self.row[usize::from(byte)]) * self.words..][..self.words]
    }

    /// Whether there is a star before token `at`.
    fn stays(&self, at: usize) -> bool {
        (self.flat[at / 64] | self.deep[at / 64]) >> (at % 64) & 1 == 1
    }

    /// Whether the whole of what was stepped over matches.
    pub(super) fn accepts(&self, now: &[u64]) -> bool {
        now[self.last / 64] >> (self.last % 64) & 1 == 1
    }

    /// Advances all states over one byte; returns whether any is left.
    pub(super) fn step(&self, now: &mut [u64], byte: u8, floating: bool) -> bool {
        let slash = byte == b'/';
        let (mut carry, mut any) = (0, 0);
        for (word, &take) in self.takes(byte).iter().enumerate() {
            let stay = self.deep[word] | if slash { 0 } else { self.flat[word] };
            let moved = now[word] & take;
            now[word] = moved << 1 | carry | now[word] & stay;
            carry = moved >> 63;
            any |= now[word];
        }
        if floating && slash {
            now[0] |= 1;
        }
        any != 0 || floating
    }

    fn new(tokens: &Tokens) -> Self {
        let last = tokens.takes.len();
        let words = (last + 1).div_ceil(64);
        let (row, rows) = rows(&tokens.takes, words);
        let mut flat = vec![0; words].into_boxed_slice();
        let mut deep = vec![0; words].into_boxed_slice();
        for (at, star) in tokens.stars.iter().enumerate() {
            match star {
                Star::None => {}
                Star::Flat => flat[at / 64] |= 1 << (at % 64),
                Star::Deep => deep[at / 64] |= 1 << (at % 64),
            }
        }
        let first_star = tokens.stars.iter().position(|&s| s != Star::None).unwrap_or(last);
        let last_star = tokens.stars.iter().rposition(|&s| s != Star::None).unwrap_or(0);
        let prefix = tokens.takes[..first_star].iter().map_while(ByteSet::only).collect();
        let mut suffix: Vec<u8> =
            tokens.takes[last_star..].iter().rev().map_while(ByteSet::only).collect();
        suffix.reverse();
        Self { words, row, rows, flat, deep, last, prefix, suffix: suffix.into() }
    }

    fn matches(&self, name: &[u8], frame: Frame) -> bool {
        let framed = frame.slash_before || frame.slash_after;
        if !framed
            && (!name.ends_with(&self.suffix) || !frame.floating && !name.starts_with(&self.prefix))
        {
            return false;
        }
        let before = frame.slash_before.then_some(b'/');
        let after = frame.slash_after.then_some(b'/');
        let bytes = before.into_iter().chain(name.iter().copied()).chain(after);
        if self.words == 1 {
            self.run_narrow(bytes, frame.floating)
        } else {
            self.run_wide(bytes, frame.floating)
        }
    }

    fn run_narrow(&self, bytes: impl Iterator<Item = u8>, floating: bool) -> bool {
        let (flat, deep) = (self.flat[0], self.deep[0]);
        let mut now = 1u64;
        for byte in bytes {
            let slash = byte == b'/';
            let stay = if slash { deep } else { deep | flat };
            now = (now & self.takes(byte)[0]) << 1 | now & stay;
            if floating && slash {
                now |= 1;
            } else if now == 0 && !floating {
                return false;
            }
        }
        now >> self.last & 1 == 1
    }

    fn run_wide(&self, mut bytes: impl Iterator<Item = u8>, floating: bool) -> bool {
        let mut now = [0u64; MAX_WORDS];
        now[0] = 1;
        bytes.all(|byte| self.step(&mut now, byte, floating)) && self.accepts(&now)
    }
}

/// For each byte the states whose next token takes it, each set once.
fn rows(takes: &[ByteSet], words: usize) -> (Box<[u8; 256]>, Box<[u64]>) {
    let mut row = Box::new([0; 256]);
    let mut known: HashMap<Vec<u64>, u8> = HashMap::new();
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        let mut set = vec![0u64; words];
        for (at, _) in takes.iter().enumerate().filter(|(_, take)| take.contains(byte)) {
            set[at / 64] |= 1 << (at % 64);
        }
        // There are at most 256 rows, so their numbers fit into a byte.
        let next = known.len() as u8;
        row[usize::from(byte)] = *known.entry(set).or_insert_with_key(|set| {
            rows.extend_from_slice(set);
            next
        });
    }
    (row, rows.into())
}

#[cfg(test)]
mod tests;

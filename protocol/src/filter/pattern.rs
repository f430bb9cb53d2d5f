//! What a rule's pattern is compared with: the base name, the whole path, or its last components.

use super::glob::{Frame, Glob, States};

/// One entry that is put to the rules.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// Path from the root of the tree.
    pub(super) path: &'a [u8],
    /// Where the base name begins in `path`.
    pub(super) name_at: usize,
    /// A link to a directory is not a directory.
    pub(super) is_dir: bool,
}

impl<'a> Subject<'a> {
    pub(super) fn new(path: &'a [u8], is_dir: bool) -> Self {
        let name_at = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        Self { path, name_at, is_dir }
    }

    pub(super) fn name(&self) -> &'a [u8] {
        &self.path[self.name_at..]
    }
}

/// A prepared pattern.
#[derive(Clone)]
pub(super) struct Pattern {
    directory_only: bool,
    scope: Scope,
    body: Body,
    /// The body as it is written, for those who need it in another form.
    text: Box<[u8]>,
}

/// The part of an entry's path that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// No slash in the pattern: the base name.
    Name,
    /// A leading slash: the path from the root.
    Path,
    /// Slashes inside: this many last components.
    Last(usize),
    /// A `**` inside: any end of the path that begins with a component.
    Floating,
    /// A `**` in front: the path with a slash before it.
    Slashed,
}

#[derive(Clone)]
enum Body {
    Literal(Box<[u8]>),
    Wild {
        glob: Glob,
        /// Ends in `***`, so that a directory is compared with a slash after its path.
        triple: bool,
    },
}

impl Pattern {
    /// Prepares the pattern as it stands in a rule.
    pub(super) fn new(text: &[u8]) -> Self {
        let (text, directory_only) = match text {
            [rest @ .., b'/'] if !rest.is_empty() => (rest, true),
            _ => (text, false),
        };
        let wild = text.iter().any(|b| matches!(b, b'*' | b'?' | b'['));
        let slashes = text.iter().filter(|&&b| b == b'/').count();
        let double = wild && text.windows(2).any(|pair| pair == b"**");
        let scope = match text {
            [b'/', ..] => Scope::Path,
            [b'*', b'*', ..] => Scope::Slashed,
            _ if double => Scope::Floating,
            _ if slashes > 0 => Scope::Last(slashes + 1),
            _ => Scope::Name,
        };
        let body = if scope == Scope::Path { &text[1..] } else { text };
        let text: Box<[u8]> = body.into();
        let body = if wild {
            Body::Wild { glob: Glob::compile(body), triple: text.ends_with(b"***") }
        } else {
            Body::Literal(body.into())
        };
        Self { directory_only, scope, body, text }
    }

    /// Whether this pattern covers the entry.
    pub(super) fn matches(&self, subject: Subject<'_>) -> bool {
        if self.directory_only && !subject.is_dir {
            return false;
        }
        let part = match self.scope {
            Scope::Name => subject.name(),
            Scope::Path | Scope::Floating | Scope::Slashed => subject.path,
            Scope::Last(count) => match last_components(subject.path, count) {
                Some(part) => part,
                None => return false,
            },
        };
        match &self.body {
            Body::Literal(literal) => **literal == *part,
            Body::Wild { glob, triple } => {
                let frame = Frame {
                    slash_before: self.scope == Scope::Slashed,
                    slash_after: *triple && subject.is_dir,
                    floating: self.scope == Scope::Floating,
                };
                glob.matches(part, frame)
            }
        }
    }

    /// Whether an entry whose path begins with this byte may be covered.
    pub(super) fn may_begin_path_with(&self, byte: u8) -> bool {
        self.scope != Scope::Path || self.may_begin_with(byte)
    }

    /// Whether an entry whose base name begins with this byte may be covered.
    pub(super) fn may_begin_name_with(&self, byte: u8) -> bool {
        self.scope != Scope::Name || self.may_begin_with(byte)
    }

    fn may_begin_with(&self, byte: u8) -> bool {
        match &self.body {
            Body::Literal(literal) => literal.first() == Some(&byte),
            Body::Wild { glob, triple } => *triple || glob.may_begin_with(byte),
        }
    }

    /// Whether an entry whose name ends with this byte may be covered.
    pub(super) fn may_end_with(&self, byte: u8) -> bool {
        match &self.body {
            Body::Literal(literal) => literal.last() == Some(&byte),
            Body::Wild { glob, triple } => *triple || glob.may_end_with(byte),
        }
    }

    /// Whether a non-directory may be covered.
    pub(super) fn may_be_file(&self) -> bool {
        !self.directory_only
    }

    /// The base name, when the pattern can match no other.
    pub(super) fn literal_name(&self) -> Option<&[u8]> {
        match (&self.body, self.scope) {
            (Body::Literal(literal), Scope::Name) => Some(literal),
            _ => None,
        }
    }

    /// The path, when the pattern can match no other.
    pub(super) fn literal_path(&self) -> Option<&[u8]> {
        match (&self.body, self.scope) {
            (Body::Literal(literal), Scope::Path) => Some(literal),
            _ => None,
        }
    }
}

/// A pattern that is fed a path byte by byte, for questions about all paths at once.
pub(super) struct Machine {
    /// `None`: matches nothing.
    states: Option<States>,
    scope: Scope,
    directory_only: bool,
    triple: bool,
}

impl Pattern {
    /// This pattern, to be fed.
    pub(super) fn machine(&self) -> Machine {
        let (states, triple) = match &self.body {
            Body::Literal(literal) => (Some(States::of_literal(literal)), false),
            Body::Wild { triple, .. } => (States::of_pattern(&self.text), *triple),
        };
        let states = states.filter(|states| match self.scope {
            Scope::Last(count) => states.slashes() + 1 == count,
            _ => true,
        });
        Machine { states, scope: self.scope, directory_only: self.directory_only, triple }
    }
}

impl Machine {
    /// Words of state that `start` and `step` need.
    pub(super) fn words(&self) -> usize {
        self.states.as_ref().map_or(0, States::words)
    }

    /// What tells one byte from another.
    pub(super) fn takes(&self, byte: u8) -> &[u64] {
        self.states.as_ref().map_or(&[], |states| states.takes(byte))
    }

    /// Before the first byte of a path.
    pub(super) fn start(&self, now: &mut [u64]) {
        if let Some(states) = &self.states {
            now.fill(0);
            now[0] = 1;
            if self.scope == Scope::Slashed {
                states.step(now, b'/', false);
            }
        }
    }

    /// Over one byte of the path.
    pub(super) fn step(&self, now: &mut [u64], byte: u8) {
        let Some(states) = &self.states else { return };
        if self.scope == Scope::Name && byte == b'/' {
            self.start(now);
        } else {
            let floating = matches!(self.scope, Scope::Last(_) | Scope::Floating);
            states.step(now, byte, floating);
        }
    }

    /// Whether the pattern covers an entry at the path fed so far.
    pub(super) fn matches(&self, now: &[u64], is_dir: bool) -> bool {
        let Some(states) = &self.states else { return false };
        if self.directory_only && !is_dir {
            return false;
        }
        if self.triple && is_dir {
            let mut after = now.to_vec();
            states.step(&mut after, b'/', false);
            return states.accepts(&after);
        }
        states.accepts(now)
    }
}

/// The last `count` components of `path`; `None` when it has fewer.
fn last_components(path: &[u8], count: usize) -> Option<&[u8]> {
    let mut slashes = path.iter().enumerate().rev().filter(|&(_, &b)| b == b'/');
    match slashes.nth(count - 1) {
        Some((at, _)) => Some(&path[at + 1..]),
        None => {
            let components = path.iter().filter(|&&b| b == b'/').count() + 1;
            (components == count).then_some(path)
        }
    }
}

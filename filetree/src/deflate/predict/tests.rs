//! The predictor beside zlib's own way: one chain for each hash, walked step by step.

use std::collections::HashMap;

use super::*;
use crate::mutate::{Random, try_many};

/// What zlib does, as plainly as can be.
struct Plainly<'a> {
    text: &'a [u8],
    parameters: Parameters,
    at: usize,
    /// Places by hash.
    chains: HashMap<u32, Vec<usize>>,
    remembered: usize,
    pending: Option<(usize, usize)>,
}

impl Plainly<'_> {
    fn hash(&self, at: usize) -> Option<u32> {
        let bytes = self.text.get(at..at + MIN_MATCH)?;
        let bits = u32::from(self.parameters.hash_bits);
        let shift = bits.div_ceil(3);
        let hash = bytes.iter().fold(0, |hash, byte| (hash << shift) ^ u32::from(*byte));
        Some(hash & ((1 << bits) - 1))
    }

    fn remember(&mut self, last: usize) {
        while self.remembered <= last
            && let Some(hash) = self.hash(self.remembered)
        {
            self.chains.entry(hash).or_default().push(self.remembered);
            self.remembered += 1;
        }
    }

    fn search(&mut self, at: usize, mut best: usize, chain: usize) -> Option<(usize, usize)> {
        self.remember(at);
        let effort = EFFORTS[usize::from(self.parameters.level) - 1];
        let places = self.chains.get(&self.hash(at)?)?;
        let most = (self.text.len() - at).min(MAX_MATCH);
        let nice = effort.nice.min(self.text.len() - at);
        if best >= most {
            return None;
        }
        let mut found = None;
        let before = places.iter().rev().skip_while(|place| **place >= at);
        for (step, &old) in before.take(chain).enumerate() {
            let distance = at - old;
            let is_too_far = if step == 0 { MAX_DISTANCE + 1 } else { MAX_DISTANCE };
            if old == 0 || distance >= is_too_far {
                break;
            }
            let len = (0..most).take_while(|n| self.text[old + n] == self.text[at + n]).count();
            if len > best {
                (best, found) = (len, Some((len, distance)));
                if len >= nice {
                    break;
                }
            }
        }
        found.filter(|found| !(effort.looks_ahead && found.0 == MIN_MATCH && found.1 > TOO_FAR))
    }

    fn predict(&mut self) -> Token {
        let effort = EFFORTS[usize::from(self.parameters.level) - 1];
        let literal = Token::literal(self.text[self.at]);
        let found = match self.pending.take() {
            None => self.search(self.at, MIN_MATCH - 1, effort.chain),
            found => found,
        };
        let Some((len, distance)) = found else { return literal };
        if effort.looks_ahead && len < effort.lazy {
            let chain = if len >= effort.good { effort.chain / 4 } else { effort.chain };
            self.pending = self.search(self.at + 1, len, chain);
            if self.pending.is_some() {
                return literal;
            }
        }
        Token { len: len as u16, distance: distance as u16 }
    }

    fn accept(&mut self, token: Token, was_predicted: bool) {
        let effort = EFFORTS[usize::from(self.parameters.level) - 1];
        if !was_predicted {
            self.pending = None;
        }
        let end = self.at + token.bytes();
        if !effort.looks_ahead && !token.is_literal() && token.bytes() > effort.lazy {
            self.remember(self.at);
            self.remembered = end;
        } else {
            self.remember(end - 1);
        }
        self.at = end;
    }
}

/// Text in which short things are common, repetitions are of every length and distance, and hashes
/// that are alike are many.
fn text(random: &mut Random, len: usize) -> Vec<u8> {
    let mut text: Vec<u8> = Vec::new();
    let letters = [2, 4, 20, 256][random.below(4)];
    while text.len() < len {
        match random.below(8) {
            0 if text.len() > 10 => {
                let from = random.below(text.len() - 5);
                let most = [6, 40, 600][random.below(3)];
                let len = 1 + random.below(most);
                text.extend_from_within(from..(from + len).min(text.len()));
            }
            1 => text.extend(std::iter::repeat_n(random.below(3) as u8, random.below(400))),
            _ => text.extend((0..9).map(|_| random.below(letters) as u8)),
        }
    }
    text.truncate(len);
    text
}

#[test]
fn what_is_predicted_is_what_zlib_finds_step_by_step() {
    thread_local! {
        static PREDICTOR: std::cell::RefCell<Predictor> = Predictor::new().into();
    }
    try_many("prediction", 40, |random| {
        let len = [300, 5_000, 70_000][random.below(3)];
        let text = text(random, len);
        let level = 1 + random.below(9) as u8;
        let parameters = Parameters { level, hash_bits: 8 + random.below(9) as u8 };
        let mut plainly = Plainly {
            text: &text,
            parameters,
            at: 0,
            chains: HashMap::new(),
            remembered: 0,
            pending: None,
        };
        PREDICTOR.with_borrow_mut(|predictor| {
            predictor.start(parameters).unwrap();
            let mut rest = &text[..];
            let wrong_share = [0, 3, 50][random.below(3)];
            while plainly.at < text.len() {
                if !predictor.is_ready() {
                    let (piece, more) = rest.split_at((1 + random.below(40_000)).min(rest.len()));
                    predictor.push(piece);
                    rest = more;
                    if rest.is_empty() {
                        predictor.end();
                    }
                    continue;
                }
                let predicted = predictor.predict();
                assert_eq!(predicted, plainly.predict(), "{parameters:?} at {}", plainly.at);
                let is_right = random.below(100) >= wrong_share;
                let token = match is_right {
                    true => predicted,
                    false if predicted.is_literal() || random.below(2) == 0 => {
                        Token::literal(text[plainly.at])
                    }
                    false => Token { len: MIN_MATCH as u16, ..predicted },
                };
                predictor.accept(token, token == predicted).unwrap();
                plainly.accept(token, token == predicted);
            }
        });
    });
}

//! Reads an assignment's `chmod`, in rsync's syntax, as what it does to any mode.

use filetree::plan::Modes;

/// Text that is not a change of modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "chmod = {0:?} is not understood: write it as for rsync --chmod, for example D755,F644 or go-w"
)]
pub struct InvalidChmod(String);

/// What `chmod` says; readable for everyone where it says nothing.
pub fn parse(chmod: Option<&str>) -> Result<Modes, InvalidChmod> {
    let Some(text) = chmod else { return Ok(Modes::READABLE) };
    let mut modes = Modes::AS_IS;
    for item in text.split(',') {
        apply(item.trim(), &mut modes).ok_or_else(|| InvalidChmod(text.to_owned()))?;
    }
    Ok(modes)
}

fn apply(item: &str, modes: &mut Modes) -> Option<()> {
    let (files, dirs, rest) = match item.as_bytes().first()? {
        b'D' => (false, true, &item[1..]),
        b'F' => (true, false, &item[1..]),
        _ => (true, true, item),
    };
    for is_dir in [false, true] {
        if !(if is_dir { dirs } else { files }) {
            continue;
        }
        let (set, clear) = change(rest, is_dir)?;
        let (old_set, old_clear) = if is_dir {
            (&mut modes.dir_set, &mut modes.dir_clear)
        } else {
            (&mut modes.file_set, &mut modes.file_clear)
        };
        // What comes later wins over what was said before.
        *old_set = (*old_set & !clear) | set;
        *old_clear = (*old_clear & !set) | clear;
    }
    Some(())
}

/// Bits that one item sets and takes away.
fn change(text: &str, is_dir: bool) -> Option<(u32, u32)> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)?;
        return Some((mode, !mode & 0o777));
    }
    let at = text.find(['+', '-', '='])?;
    let who = who_mask(&text[..at])?;
    let mut bits = 0;
    for c in text[at + 1..].chars() {
        bits |= match c {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if is_dir => 0o111,
            'X' => 0,
            _ => return None,
        };
    }
    let bits = bits & who;
    Some(match text.as_bytes()[at] {
        b'+' => (bits, 0),
        b'-' => (0, bits),
        _ => (bits, who & !bits),
    })
}

fn who_mask(who: &str) -> Option<u32> {
    if who.is_empty() {
        return Some(0o777);
    }
    who.chars().try_fold(0, |mask, c| {
        Some(
            mask | match c {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(text: &str) -> (u32, u32) {
        let modes = parse(Some(text)).unwrap();
        let of = |mode: u32, set: u32, clear: u32| (mode & !clear) | set;
        (of(0o640, modes.file_set, modes.file_clear), of(0o750, modes.dir_set, modes.dir_clear))
    }

    #[test]
    fn modes_are_changed_as_rsync_changes_them() {
        assert_eq!(modes("D755,F644"), (0o644, 0o755));
        assert_eq!(modes("go+rX"), (0o644, 0o755));
        assert_eq!(modes("o=r,g-r"), (0o604, 0o714));
        assert_eq!(modes("Fu+x"), (0o740, 0o750));
        assert_eq!(parse(None), Ok(Modes::READABLE));
        for text in ["", "D", "999", "7777", "rwx", "u+s", "z+r"] {
            assert!(parse(Some(text)).is_err(), "{text}");
        }
    }
}

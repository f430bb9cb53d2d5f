//! `chmod`, in rsync's syntax: parts separated by commas, each octal or symbolic, with `D` or `F`
//! in front where it is for directories or files only.

/// Why a text is not a change of modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidMode {
    /// Nothing between two commas.
    #[error("a part is empty; write for example D755,F644 or Dg+s,ug+w,Fo-w")]
    Empty,
    /// Neither octal digits nor `ugoa` with `+`, `-` or `=`.
    #[error("a part is neither octal (755) nor symbolic (u=rwX,go+r); write for example D755,F644")]
    Syntax,
    /// setuid, setgid on files, or octal digits that say so.
    #[error(
        "it would set the set-user or set-group bit on files, which mirrored content never gets"
    )]
    Privileged,
}

/// Checks the text.
pub(super) fn check(text: &str) -> Result<(), InvalidMode> {
    text.split(',').try_for_each(check_part)
}

fn check_part(part: &str) -> Result<(), InvalidMode> {
    let (dirs_only, part) = match part.as_bytes().first() {
        None => return Err(InvalidMode::Empty),
        Some(b'D') => (true, &part[1..]),
        Some(b'F') => (false, &part[1..]),
        Some(_) => (false, part),
    };
    if !part.is_empty() && part.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        let value = u32::from_str_radix(part, 8).map_err(|_| InvalidMode::Syntax)?;
        return match value {
            value if value > 0o7777 => Err(InvalidMode::Syntax),
            value if value & 0o6000 != 0 && !dirs_only => Err(InvalidMode::Privileged),
            _ => Ok(()),
        };
    }
    let who = part.bytes().take_while(|b| b"ugoa".contains(b)).count();
    let rest = &part.as_bytes()[who..];
    let Some((operator, what)) = rest.split_first() else { return Err(InvalidMode::Syntax) };
    if !b"+-=".contains(operator) || !what.iter().all(|b| b"rwxXst".contains(b)) {
        return Err(InvalidMode::Syntax);
    }
    if what.contains(&b's') && *operator != b'-' && !dirs_only {
        return Err(InvalidMode::Privileged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_rsync_reads_them_pass_and_privileges_on_files_do_not() {
        for text in ["D755,F644", "u=rwX,go=rX", "Dg+s", "ug+w,Fo-w", "755", "F=r", "a-s", "D2775"]
        {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let refused = [
            ("", InvalidMode::Empty),
            ("D755,", InvalidMode::Empty),
            ("D", InvalidMode::Syntax),
            ("rwx", InvalidMode::Syntax),
            ("u*x", InvalidMode::Syntax),
            ("u+q", InvalidMode::Syntax),
            ("888", InvalidMode::Syntax),
            ("17777", InvalidMode::Syntax),
            ("u+s", InvalidMode::Privileged),
            ("4755", InvalidMode::Privileged),
            ("F2644", InvalidMode::Privileged),
        ];
        for (text, expected) in refused {
            assert_eq!(check(text), Err(expected), "{text:?}");
        }
    }
}

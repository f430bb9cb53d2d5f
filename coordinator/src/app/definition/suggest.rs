//! "Did you mean": the name that is closest to one that does not exist.

/// Longest name that is compared: the comparison takes the product of both lengths.
const MAX_LEN: usize = 128;

/// ` (did you mean …?)` for the closest of the names, or nothing when none is close.
pub(super) fn did_you_mean<S: AsRef<str>>(
    wrong: &str,
    names: impl IntoIterator<Item = S>,
) -> String {
    let near = |name: S| {
        let name = name.as_ref().to_owned();
        let distance = distance(wrong, &name)?;
        (distance * 3 <= wrong.len().max(name.len())).then_some((distance, name))
    };
    match names.into_iter().filter_map(near).min() {
        Some((_, name)) => format!(" (did you mean `{name}`?)"),
        None => String::new(),
    }
}

/// Insertions, deletions, replacements and swaps of neighbors that lead from one to the other.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > MAX_LEN || b.len() > MAX_LEN {
        return None;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    Some(rows[a.len()][b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        let names = ["fedora", "debian", "releases"];
        assert_eq!(did_you_mean("fedroa", names), " (did you mean `fedora`?)");
        assert_eq!(did_you_mean("release", names), " (did you mean `releases`?)");
        assert_eq!(did_you_mean("arch", names), "");
        assert_eq!(did_you_mean(&"x".repeat(10_000), names), "");
    }
}

//! What another program says, line by line, however long its lines are.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Longest line, in bytes; a longer one is told in parts.
const MAX_LINE: u64 = 4 << 10;

/// Gives each line without its end, until there is nothing more or it cannot be read.
pub(crate) async fn read(from: impl AsyncRead + Unpin, mut each: impl FnMut(&[u8])) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => each(line.strip_suffix(b"\n").unwrap_or(&line)),
        }
    }
}

//! What packing a large disk image takes.

use tests::image;

use crate::figure::Figure;

const LENGTH: u64 = 10 << 30;

pub(crate) fn run() -> Vec<Figure> {
    let dir = tempfile::tempdir().unwrap();
    let packed = image::pack(dir.path(), LENGTH, "128MiB");
    println!("{packed:?}");
    vec![Figure {
        what: "peak memory of `publisher pack`, an image of 10 GiB".into(),
        ours: packed.peak_bytes as f64 / f64::from(1 << 20),
        unit: "MiB",
        peer: None,
        most: 128.0,
    }]
}

//! The text of a piece before it is cut into patches (the original's `extract_clamp2.py` and `train_m3.py`).

use notation::corpus::PieceSource;

use crate::{Error, Result};

/// A piece as features are extracted from it: without comments, which begin with one `%` alone.
pub fn feature_text(piece: &PieceSource) -> Result<String> {
    Ok(read(piece)?.into_iter().filter(|line| !line.starts_with('%') || line.starts_with("%%")).collect())
}

/// A piece as M3 is trained on it: ABC without its `L:1/8`.
pub fn training_text(piece: &PieceSource) -> Result<String> {
    let text = read(piece)?.concat();
    let is_abc = piece.path().as_os_str().as_encoded_bytes().ends_with(b".abc");
    Ok(if is_abc { text.replace("L:1/8\n", "") } else { text })
}

fn read(piece: &PieceSource) -> Result<Vec<String>> {
    let bytes = piece.read().map_err(|error| Error::Invalid(error.to_string()))?;
    let text = notation::text::decode(&bytes);
    let text = text.map_err(|error| Error::Invalid(format!("{}: {error}", piece.path().display())))?;
    Ok(notation::text::lines(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_directives_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.abc");
        std::fs::write(&path, "%comment\r\n%%score 1\nL:1/8\n % a\n%%%\nA|").unwrap();
        assert_eq!(feature_text(&PieceSource::File(path.clone())).unwrap(), "%%score 1\nL:1/8\n % a\n%%%\nA|");
        assert_eq!(training_text(&PieceSource::File(path.clone())).unwrap(), "%comment\n%%score 1\n % a\n%%%\nA|");
        let other = folder.path().join("a.mtf");
        std::fs::write(&other, "L:1/8\n").unwrap();
        assert_eq!(training_text(&PieceSource::File(other.clone())).unwrap(), "L:1/8\n");
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.abc");
        assert!(feature_text(&PieceSource::File(path.clone())).unwrap_err().to_string().contains("a.abc: "));
        std::fs::write(&path, b"X:1\n\xff").unwrap();
        assert!(
            feature_text(&PieceSource::File(path.clone()))
                .unwrap_err()
                .to_string()
                .contains("a.abc: line 2: not UTF-8")
        );
    }
}

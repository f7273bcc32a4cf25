//! TensorBoard's event files: records of a length, its checksum, an event and its checksum.
use crate::Result;
use crate::error::At;
use crate::files::{list, write};
use std::path::Path;

/// Removes the events after `step` from the event files of a folder: a training that resumes writes them again, and
/// TensorBoard would draw both. So does a record that a killed run left half-written.
pub(crate) fn truncate(folder: &Path, step: u64) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for path in list(folder, |name| name.starts_with("events.out.tfevents."))? {
        let bytes = std::fs::read(&path).at(&path)?;
        let kept: Vec<u8> = records(&bytes).filter(|record| step_of(record) <= step).flatten().copied().collect();
        if kept.len() < bytes.len() {
            write(&path, &kept)?;
        }
    }
    Ok(())
}

/// The whole records of a file, checksums included.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u64::from_le_bytes(*bytes.first_chunk()?);
        let (record, rest) = bytes.split_at_checked(usize::try_from(length).ok()?.checked_add(16)?)?;
        bytes = rest;
        Some(record)
    })
}

/// The step of a record's event, a protobuf message: `wall_time` is its field 1, a double, and `step` its field 2, a
/// varint that is left out where it is 0.
fn step_of(record: &[u8]) -> u64 {
    match &record[12..] {
        [0x09, _, _, _, _, _, _, _, _, 0x10, step @ ..] | [0x10, step @ ..] => {
            let length = step.iter().take_while(|byte| **byte >= 0x80).count() + 1;
            step.iter().take(length).rev().fold(0, |step, byte| step << 7 | u64::from(byte & 0x7f))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensorboard_rs::summary_writer::SummaryWriter;

    #[test]
    fn events_after_a_step_are_removed_and_the_others_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = SummaryWriter::new(folder.path());
        for step in [0, 1, 127, 128, 300, 301, 70_000] {
            board.add_scalar("loss", step as f32, step);
        }
        drop(board);
        let path = list(folder.path(), |_| true).unwrap().remove(0);
        let steps = |bytes: &[u8]| records(bytes).map(step_of).collect::<Vec<_>>();
        let before = std::fs::read(&path).unwrap();
        // The first record is the file's version.
        assert_eq!(steps(&before), [0, 0, 1, 127, 128, 300, 301, 70_000]);
        // The last record is not whole.
        std::fs::write(&path, &before[..before.len() - 1]).unwrap();
        truncate(folder.path(), 300).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(steps(&after), [0, 0, 1, 127, 128, 300]);
        assert!(before.starts_with(&after));
        truncate(&folder.path().join("none"), 0).unwrap();
    }
}

//! Packed corpora: many pieces in one compressed file, each of which can be read on its own.
//!
//! ```text
//! "notagen-pack-01\n"
//! texts: each compressed (zlib), sorted by name; a text that several pieces have is stored once
//! contents: 40 bytes for each piece, sorted by name; then the names, one after the other
//! end: offset, length and CRC-32 of the contents, number of pieces, "notagen-pack-01\n"
//! ```
//!
//! Numbers are little-endian. An open pack keeps its contents in memory as they are in the file. Texts are read at their
//! offset, so any number of threads may read.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

const MAGIC: &[u8; 16] = b"notagen-pack-01\n";
const END: usize = 8 + 8 + 8 + 8 + MAGIC.len();
const RECORD: usize = 40;

/// The beginning of each piece in the journal.
const JOURNAL_MAGIC: u32 = 0x4e50_6a31;
const JOURNAL_HEAD: usize = 4 + 4 + RECORD;

/// Where a text is stored, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StoredText {
    place: u64,
    /// Bytes, compressed.
    length: u32,
    size: u32,
    /// The first half of the text's SHA-256.
    hash: [u8; 16],
}

impl StoredText {
    /// The 40 bytes of the contents. They begin with the offset at which the piece's name ends among the names.
    fn record(&self, name_end: u64) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&name_end.to_le_bytes());
        record[8..16].copy_from_slice(&self.place.to_le_bytes());
        record[16..20].copy_from_slice(&self.length.to_le_bytes());
        record[20..24].copy_from_slice(&self.size.to_le_bytes());
        record[24..].copy_from_slice(&self.hash);
        record
    }

    fn read(record: &[u8]) -> StoredText {
        let mut hash = [0; 16];
        hash.copy_from_slice(&record[24..RECORD]);
        StoredText { place: long(&record[8..]), length: short(&record[16..]), size: short(&record[20..]), hash }
    }
}

fn long(bytes: &[u8]) -> u64 {
    bytes[..8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn short(bytes: &[u8]) -> u32 {
    bytes[..4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}

/// Whether a file begins like a packed corpus.
pub fn is_pack(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && &start == MAGIC
}

/// A packed corpus, open for reading.
#[derive(Debug)]
pub struct PackedCorpus {
    path: PathBuf,
    file: File,
    records: Vec<u8>,
    names: Vec<u8>,
}

impl PackedCorpus {
    /// Opens a pack and reads its contents.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Pack`] for a file that is no packed corpus, or is cut off or damaged.
    pub fn open(path: &Path) -> Result<PackedCorpus> {
        let wrong = |problem: &str| Error::Pack { path: path.to_owned(), problem: problem.to_owned() };
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let mut end = [0; END];
        let mut start = [0; MAGIC.len()];
        if length < (MAGIC.len() + END) as u64 {
            return Err(wrong("not a packed corpus"));
        }
        let contents_end = length - END as u64;
        file.read_exact_at(&mut start, 0).map_err(Error::io(path))?;
        file.read_exact_at(&mut end, contents_end).map_err(Error::io(path))?;
        match (&start == MAGIC, end.ends_with(MAGIC)) {
            (true, true) => {}
            (true, false) => return Err(wrong("cut off: its contents are missing")),
            (false, _) => return Err(wrong("not a packed corpus")),
        }
        let [place, size, sum, pieces] = [0, 8, 16, 24].map(|at| long(&end[at..]));
        let damaged = || wrong("damaged: its contents are not what was written");
        let records = pieces.checked_mul(RECORD as u64).filter(|records| *records <= size).ok_or_else(damaged)?;
        if place < MAGIC.len() as u64 || place.checked_add(size) != Some(contents_end) {
            return Err(damaged());
        }
        let mut contents = vec![0; usize::try_from(size).map_err(|_| damaged())?];
        file.read_exact_at(&mut contents, place).map_err(Error::io(path))?;
        if u64::from(crc(&[&contents])) != sum {
            return Err(damaged());
        }
        let names = contents.split_off(records as usize);
        let pack = PackedCorpus { path: path.to_owned(), file, records: contents, names };
        if pack.is_sound(place) { Ok(pack) } else { Err(damaged()) }
    }

    /// Whether the names are sorted and the texts are within the file.
    fn is_sound(&self, contents: u64) -> bool {
        let mut start = 0;
        let within = self.records.chunks_exact(RECORD).all(|record| {
            let (end, stored) = (long(record), StoredText::read(record));
            let name = start <= end && end <= self.names.len() as u64;
            start = end;
            name && stored.place.checked_add(u64::from(stored.length)).is_some_and(|end| end <= contents)
        });
        within
            && std::str::from_utf8(&self.names).is_ok()
            && (1..self.len()).all(|index| self.name_bytes(index - 1) < self.name_bytes(index))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of pieces.
    pub fn len(&self) -> usize {
        self.records.len() / RECORD
    }

    /// Whether there are no pieces.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The name of a piece. Pieces are indexed in the order of their names.
    pub fn name(&self, index: usize) -> &str {
        std::str::from_utf8(self.name_bytes(index)).unwrap_or_default()
    }

    /// The index of the piece with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name_bytes(middle).cmp(name.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The text of a piece.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Pack`] for a damaged text.
    pub fn text(&self, index: usize) -> Result<String> {
        let stored = self.stored(index);
        let damaged =
            || Error::Pack { path: self.path.clone(), problem: format!("damaged: the text of {}", self.name(index)) };
        let packed = self.packed(&stored)?;
        let mut text = String::new();
        ZlibDecoder::new(packed.as_slice())
            .take(u64::from(stored.size) + 1)
            .read_to_string(&mut text)
            .map_err(|_| damaged())?;
        if text.len() == stored.size as usize { Ok(text) } else { Err(damaged()) }
    }

    /// The bytes of a piece's text, not compressed.
    pub fn size(&self, index: usize) -> u64 {
        self.stored(index).size.into()
    }

    /// Whether these, sorted, are exactly its names.
    fn has_just(&self, names: &[&str]) -> bool {
        self.len() == names.len() && names.iter().enumerate().all(|(index, name)| self.name(index) == *name)
    }

    /// The pieces that have the text of an earlier piece, with the name of that piece.
    fn duplicates(&self) -> HashMap<String, String> {
        let mut first: HashMap<u64, usize> = HashMap::new();
        let mut duplicates = HashMap::new();
        for index in 0..self.len() {
            let first = *first.entry(self.stored(index).place).or_insert(index);
            if first != index {
                duplicates.insert(self.name(index).to_owned(), self.name(first).to_owned());
            }
        }
        duplicates
    }

    fn packed(&self, stored: &StoredText) -> Result<Vec<u8>> {
        let mut packed = vec![0; stored.length as usize];
        self.file.read_exact_at(&mut packed, stored.place).map_err(Error::io(&self.path))?;
        Ok(packed)
    }

    fn record(&self, index: usize) -> &[u8] {
        &self.records[index * RECORD..(index + 1) * RECORD]
    }

    fn stored(&self, index: usize) -> StoredText {
        StoredText::read(self.record(index))
    }

    fn name_bytes(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { long(self.record(index - 1)) as usize };
        self.names.get(start..long(self.record(index)) as usize).unwrap_or_default()
    }
}

/// Writes a packed corpus, or updates one. Pieces are added in any order from any thread. They go to a journal beside the
/// file first, so that none is lost if the process is killed.
#[derive(Debug)]
pub struct PackWriter {
    path: PathBuf,
    before: Option<PackedCorpus>,
    journal: File,
    journal_path: PathBuf,
    new: Mutex<JournalPieces>,
}

#[derive(Debug, Default)]
struct JournalPieces {
    end: u64,
    pieces: HashMap<String, StoredText>,
}

impl PackWriter {
    /// Opens the packed corpus at `path`, if there is one, and the journal of a killed process.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Pack`] for a file at `path` that is no packed corpus: it is not overwritten.
    pub fn open(path: &Path) -> Result<PackWriter> {
        let before = if path.exists() { Some(PackedCorpus::open(path)?) } else { None };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let journal_path = beside(path, "journal");
        let journal = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&journal_path);
        let journal = journal.map_err(Error::io(&journal_path))?;
        let new = Mutex::new(scan(&journal).map_err(Error::io(&journal_path))?);
        Ok(PackWriter { path: path.to_owned(), before, journal, journal_path, new })
    }

    /// Whether there is a piece with this name.
    pub fn has(&self, name: &str) -> bool {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).pieces.contains_key(name)
            || self.before.as_ref().is_some_and(|before| before.find(name).is_some())
    }

    /// Adds a piece, or replaces the one with its name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Pack`] for a text of 4 GiB.
    pub fn add(&self, name: &str, text: &str) -> Result<()> {
        let too_long = || Error::Pack { path: self.path.clone(), problem: format!("{name} is too long") };
        let io = |error| Error::io(&self.journal_path)(error);
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        let packed = packed.write_all(text.as_bytes()).and_then(|()| packed.finish()).map_err(io)?;
        let mut hash = [0; 16];
        hash.copy_from_slice(&Sha256::digest(text)[..16]);
        let size = u32::try_from(text.len()).map_err(|_| too_long())?;
        let length = u32::try_from(packed.len()).map_err(|_| too_long())?;
        let mut stored = StoredText { place: 0, length, size, hash };

        let record = stored.record(name.len() as u64);
        let head =
            [&JOURNAL_MAGIC.to_le_bytes()[..], &crc(&[&record, name.as_bytes(), &packed]).to_le_bytes()].concat();
        let entry = [&head, &record[..], name.as_bytes(), &packed].concat();
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        self.journal.write_all_at(&entry, new.end).map_err(io)?;
        stored.place = new.end + (JOURNAL_HEAD + name.len()) as u64;
        new.end += entry.len() as u64;
        new.pieces.insert(name.to_owned(), stored);
        Ok(())
    }

    /// Writes the packed corpus with these pieces, whole or not at all. Returns the pieces that have the text of an earlier
    /// piece, with the name of that piece. The file depends on the pieces alone, not on the order in which they were added.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Pack`] for a piece that was not added.
    pub fn finish(self, names: &[&str]) -> Result<HashMap<String, String>> {
        let mut names = names.to_vec();
        names.sort_unstable();
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = self.before.as_ref().filter(|before| new.pieces.is_empty() && before.has_just(&names)) {
            fs::remove_file(&self.journal_path).map_err(Error::io(&self.journal_path))?;
            return Ok(before.duplicates());
        }
        let part = beside(&self.path, "part");
        let io = |error| Error::io(&part)(error);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(io)?);
        file.write_all(MAGIC).map_err(io)?;
        let mut place = MAGIC.len() as u64;
        let (mut records, mut all_names) = (Vec::new(), Vec::new());
        let mut known: HashMap<[u8; 16], (StoredText, &str)> = HashMap::new();
        let mut duplicates = HashMap::new();
        for name in names {
            let (stored, packed) = self.before_or_new(&new, name)?;
            let stored = match known.get(&stored.hash) {
                Some((stored, first)) => {
                    duplicates.insert(name.to_owned(), (*first).to_owned());
                    *stored
                }
                None => {
                    file.write_all(&packed).map_err(io)?;
                    let stored = StoredText { place, ..stored };
                    place += u64::from(stored.length);
                    known.insert(stored.hash, (stored, name));
                    stored
                }
            };
            all_names.extend_from_slice(name.as_bytes());
            records.extend_from_slice(&stored.record(all_names.len() as u64));
        }
        let pieces = (records.len() / RECORD) as u64;
        let contents = [records, all_names].concat();
        file.write_all(&contents).map_err(io)?;
        for number in [place, contents.len() as u64, u64::from(crc(&[&contents])), pieces] {
            file.write_all(&number.to_le_bytes()).map_err(io)?;
        }
        file.write_all(MAGIC).map_err(io)?;
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        fs::rename(&part, &self.path).map_err(Error::io(&self.path))?;
        fs::remove_file(&self.journal_path).map_err(Error::io(&self.journal_path))?;
        Ok(duplicates)
    }

    fn before_or_new(&self, new: &JournalPieces, name: &str) -> Result<(StoredText, Vec<u8>)> {
        if let Some(stored) = new.pieces.get(name) {
            let mut packed = vec![0; stored.length as usize];
            self.journal.read_exact_at(&mut packed, stored.place).map_err(Error::io(&self.journal_path))?;
            return Ok((*stored, packed));
        }
        let found = self.before.as_ref().and_then(|before| Some((before, before.stored(before.find(name)?))));
        let (before, stored) =
            found.ok_or_else(|| Error::Pack { path: self.path.clone(), problem: format!("{name} is not in it") })?;
        Ok((stored, before.packed(&stored)?))
    }
}

/// `.<name>.<what>` in the folder of the file.
fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_file_name(format!(".{}.{what}", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// The pieces of a journal, up to the first that is cut off or damaged.
fn scan(journal: &File) -> std::io::Result<JournalPieces> {
    let length = journal.metadata()?.len();
    let mut new = JournalPieces::default();
    let mut head = [0; JOURNAL_HEAD];
    while length - new.end >= JOURNAL_HEAD as u64 {
        journal.read_exact_at(&mut head, new.end)?;
        let record = &head[8..];
        let mut stored = StoredText::read(record);
        let (name_length, rest) = (long(record), length - new.end - JOURNAL_HEAD as u64);
        let whole = name_length.checked_add(u64::from(stored.length)).filter(|size| *size <= rest);
        let Some(size) = whole.filter(|_| short(&head) == JOURNAL_MAGIC) else { break };
        let mut entry = vec![0; size as usize];
        journal.read_exact_at(&mut entry, new.end + JOURNAL_HEAD as u64)?;
        let Ok(name) = std::str::from_utf8(&entry[..name_length as usize]) else { break };
        if crc(&[record, &entry]) != short(&head[4..]) {
            break;
        }
        stored.place = new.end + JOURNAL_HEAD as u64 + name_length;
        new.pieces.insert(name.to_owned(), stored);
        new.end += JOURNAL_HEAD as u64 + size;
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(path: &Path, pieces: &[(&str, &str)]) -> HashMap<String, String> {
        let writer = PackWriter::open(path).unwrap();
        for (name, text) in pieces {
            writer.add(name, text).unwrap();
        }
        writer.finish(&pieces.iter().map(|(name, _)| *name).collect::<Vec<_>>()).unwrap()
    }

    fn texts(path: &Path) -> Vec<(String, String)> {
        let pack = PackedCorpus::open(path).unwrap();
        (0..pack.len()).map(|index| (pack.name(index).to_owned(), pack.text(index).unwrap())).collect()
    }

    fn owned(pieces: &[(&str, &str)]) -> Vec<(String, String)> {
        pieces.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn pieces_come_back_and_equal_ones_are_stored_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pack");
        let long = "cdef|".repeat(10_000);
        let duplicates = packed(&path, &[("b", "B|"), ("ä.1", &long), ("a", "B|"), ("c", ""), ("d", &long)]);
        assert_eq!(texts(&path), owned(&[("a", "B|"), ("b", "B|"), ("c", ""), ("d", &long), ("ä.1", &long)]));
        let expected = [("b".to_owned(), "a".to_owned()), ("ä.1".to_owned(), "d".to_owned())];
        assert_eq!(duplicates, HashMap::from(expected));
        let pack = PackedCorpus::open(&path).unwrap();
        assert_eq!(["a", "c", "ä.1", "e", ""].map(|name| pack.find(name)), [Some(0), Some(2), Some(4), None, None]);
        assert!(fs::metadata(&path).unwrap().len() < 1_000);
        packed(&path, &[]);
        assert!(PackedCorpus::open(&path).unwrap().is_empty());
    }

    #[test]
    fn the_file_depends_on_the_pieces_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        packed(&one, &[("a", "A|"), ("b", "B|"), ("c", "C|")]);
        // Another order, with a piece replaced, one gone, and one from the pack before.
        packed(&other, &[("c", "C|"), ("b", "A|"), ("d", "D|")]);
        let writer = PackWriter::open(&other).unwrap();
        assert!(writer.has("c") && !writer.has("a"));
        writer.add("b", "B|").unwrap();
        writer.add("a", "A|").unwrap();
        writer.finish(&["c", "a", "b"]).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap());
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 2);
        assert!(PackWriter::open(&one).unwrap().finish(&["x"]).unwrap_err().to_string().contains("x is not in it"));
    }

    #[test]
    fn a_killed_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pack");
        let journal = beside(&path, "journal");
        for cut in [1, 30, 50, 0] {
            let _ = fs::remove_file(&journal);
            let writer = PackWriter::open(&path).unwrap();
            writer.add("a", "A|").unwrap();
            writer.add("b", "B|").unwrap();
            drop(writer);
            let bytes = fs::read(&journal).unwrap();
            fs::write(&journal, &bytes[..bytes.len() - cut]).unwrap();
            let writer = PackWriter::open(&path).unwrap();
            assert!(writer.has("a"));
            assert_eq!(writer.has("b"), cut == 0, "{cut}");
            writer.add("b", "B|").unwrap();
            writer.finish(&["a", "b"]).unwrap();
            assert_eq!(texts(&path), owned(&[("a", "A|"), ("b", "B|")]));
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pack");
        packed(&path, &[("a", "A|"), ("b", "BBBBBBBBBBBBBBBB|")]);
        let whole = fs::read(&path).unwrap();
        let mut wrong = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let read = PackedCorpus::open(&path)
                .and_then(|pack| (0..pack.len()).map(|index| pack.text(index)).collect::<Result<Vec<_>>>());
            wrong += usize::from(read.is_err());
            fs::write(&path, &whole[..at]).unwrap();
            assert!(PackedCorpus::open(&path).is_err());
        }
        // A bit of a zlib header, and hashes, may change unseen.
        assert!(wrong + 3 >= whole.len(), "{wrong} of {}", whole.len());
        fs::write(&path, "a file of somebody's that is long enough to be read as a pack of pieces of music").unwrap();
        assert!(PackWriter::open(&path).unwrap_err().to_string().ends_with("a.pack: not a packed corpus"));
    }
}

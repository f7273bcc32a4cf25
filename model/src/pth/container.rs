//! The zip archive around a checkpoint: which record lies where.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use tch::Kind;
use zip::{CompressionMethod, ZipArchive};

use super::{Problem, error::io, foreign, storage::Storage};

/// Longest `data.pkl` that is read. NotaGen-large with its optimizer has 0.3 MB.
pub(super) const PICKLE_LIMIT: u64 = 64 << 20;

/// Most records that are listed.
const RECORD_LIMIT: u64 = 1 << 20;

/// The end-of-directory record without its comment, and the longest comment.
const END: u64 = 22;
const LONGEST_COMMENT: u64 = 0xffff;

#[derive(Debug)]
struct Record {
    start: u64,
    bytes: u64,
}

/// An opened archive.
#[derive(Debug)]
pub(super) struct Container {
    file: Arc<File>,
    path: Arc<Path>,
    records: HashMap<String, Record>,
    /// The folder that holds everything, with its slash: named after the file by `torch.save`.
    root: String,
    big_endian: bool,
    storages: HashMap<String, Arc<Storage>>,
}

impl Container {
    pub(super) fn open(path: Arc<Path>) -> Result<Self, Problem> {
        let mut file = File::open(&path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("look at"))?;
        if metadata.is_dir() {
            return Err(Problem::Folder);
        }
        recognise(&mut file, metadata.len())?;
        let (records, root) = list(&file, metadata.len())?;
        let mut container =
            Self { file: Arc::new(file), path, records, root, big_endian: false, storages: HashMap::new() };
        container.big_endian = container.byte_order()?;
        Ok(container)
    }

    /// The bytes of `data.pkl`.
    pub(super) fn pickle(&self) -> Result<Vec<u8>, Problem> {
        self.read("data.pkl", PICKLE_LIMIT, "data.pkl is larger than any checkpoint's")
    }

    /// The storage `data/KEY`, which has to hold at least `bytes` bytes of numbers of type `kind`.
    pub(super) fn storage(&mut self, key: &str, kind: Kind, bytes: u64) -> Result<Arc<Storage>, Problem> {
        let name = format!("data/{key}");
        let record = self.records.get(&format!("{}{name}", self.root));
        let record = record.ok_or_else(|| Problem::MissingRecord { record: name.clone() })?;
        if record.bytes < bytes {
            return Err(Problem::ShortStorage { record: name, bytes: record.bytes, needed: bytes });
        }
        if let Some(storage) = self.storages.get(key) {
            return Ok(storage.clone());
        }
        let mut storage = Storage::new(self.file.clone(), self.path.clone(), name, record.start, record.bytes);
        if self.big_endian {
            storage = storage.swapped(kind);
        }
        let storage = Arc::new(storage);
        self.storages.insert(key.to_string(), storage.clone());
        Ok(storage)
    }

    fn byte_order(&self) -> Result<bool, Problem> {
        if !self.records.contains_key(&format!("{}byteorder", self.root)) {
            return Ok(false);
        }
        match &self.read("byteorder", 64, "the record byteorder is not a word")?[..] {
            b"little" => Ok(false),
            b"big" => Ok(true),
            other => Err(Problem::Zip(format!("its byte order is `{}`", String::from_utf8_lossy(other)))),
        }
    }

    fn read(&self, name: &str, limit: u64, what: &'static str) -> Result<Vec<u8>, Problem> {
        let record = self.records.get(&format!("{}{name}", self.root));
        let record = record.ok_or_else(|| Problem::MissingRecord { record: name.to_string() })?;
        if record.bytes > limit {
            return Err(Problem::Limit { what, limit });
        }
        let mut bytes = vec![0; record.bytes as usize];
        self.file.read_exact_at(&mut bytes, record.start).map_err(io("read"))?;
        Ok(bytes)
    }
}

/// Refuses what is not a whole zip archive, and says what it is.
fn recognise(file: &mut File, len: u64) -> Result<(), Problem> {
    let mut head = Vec::new();
    file.take(512).read_to_end(&mut head).map_err(io("read"))?;
    if !head.starts_with(b"PK\x03\x04") {
        return Err(foreign::identify(&head, len));
    }
    let mut tail = Vec::new();
    let start = len.saturating_sub(END + LONGEST_COMMENT);
    file.seek(SeekFrom::Start(start)).map_err(io("read"))?;
    file.take(END + LONGEST_COMMENT).read_to_end(&mut tail).map_err(io("read"))?;
    let is_end = |record: &[u8]| record.starts_with(b"PK\x05\x06");
    if tail.windows(END as usize).any(is_end) { Ok(()) } else { Err(Problem::Truncated { bytes: len }) }
}

/// Every record by its name, and the folder that holds them.
fn list(file: &File, len: u64) -> Result<(HashMap<String, Record>, String), Problem> {
    let damaged = |error: zip::result::ZipError| Problem::Zip(error.to_string());
    let mut archive = ZipArchive::new(BufReader::with_capacity(1 << 12, file)).map_err(damaged)?;
    if archive.len() as u64 > RECORD_LIMIT {
        return Err(Problem::Limit { what: "the archive has too many records", limit: RECORD_LIMIT });
    }
    let root = root(&archive)?;
    let mut records = HashMap::with_capacity(archive.len());
    let mut total = 0u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let (name, start, bytes) = (entry.name().to_string(), entry.data_start(), entry.size());
        if entry.encrypted() {
            return Err(Problem::Encrypted { record: name });
        }
        if entry.compression() != CompressionMethod::Stored || entry.compressed_size() != bytes {
            return Err(Problem::Compressed { record: name });
        }
        if start.checked_add(bytes).is_none_or(|end| end > len) {
            return Err(Problem::Zip(format!("record `{name}` ends beyond the end of the file")));
        }
        total = total.saturating_add(bytes);
        if records.insert(name.clone(), Record { start, bytes }).is_some() {
            return Err(Problem::Zip(format!("record `{name}` is there twice")));
        }
    }
    if total > len {
        return Err(Problem::Zip("its records overlap".into()));
    }
    Ok((records, root))
}

fn root<R>(archive: &ZipArchive<R>) -> Result<String, Problem>
where
    R: Read + Seek,
{
    let of = |name: &'static str| {
        let roots = archive.file_names().filter_map(move |record| record.strip_suffix(name));
        roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(|root| root.len())
    };
    let root = of("data.pkl").ok_or(Problem::NotTorch)?;
    if of("constants.pkl") == Some(root) { Err(Problem::TorchScript) } else { Ok(root.to_string()) }
}

//! Files and folders as pieces of work: found, split at the ends of lines, and read.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A file as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The lines of a file that begin in a range of bytes. Every line begins in exactly one of the
/// ranges that cover a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRange {
    #[serde(with = "path_bytes")]
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The files at these paths, each once, in order: a file itself, a folder with all below it.
/// Links inside of folders are not followed. With `extensions`, only such files of folders; with
/// `most`, files are taken until the next one would make it more bytes than that.
pub(crate) fn find(
    paths: &[PathBuf],
    extensions: &[String],
    most: Option<u64>,
) -> anyhow::Result<Vec<InputFile>> {
    let mut files: Vec<InputFile> = Vec::new();
    let (mut seen, mut left) = (BTreeSet::new(), most.unwrap_or(u64::MAX));
    // What is still to be looked at, last first; a stack, so that depth costs no recursion.
    let mut open: Vec<(PathBuf, bool)> = Vec::new();
    for path in paths.iter().rev() {
        let full =
            fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
        open.push((full, true));
    }
    while let Some((path, named)) = open.pop() {
        let kind = fs::symlink_metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() {
            open.extend(entries(&path)?.into_iter().map(|entry| (entry, false)));
        } else if named || (kind.is_file() && wanted(&path, extensions)) {
            let Some(rest) = left.checked_sub(kind.len()) else { break };
            if seen.insert(path.clone()) {
                left = rest;
                files.push(InputFile { path, bytes: kind.len() });
            }
        }
    }
    let names = || paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!files.is_empty(), "no input files in {}", names());
    Ok(files)
}

/// What is in a folder, in reverse order.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut paths =
        list().with_context(|| format!("cannot read the folder {}", folder.display()))?;
    paths.sort_by(|a, b| b.cmp(a));
    Ok(paths)
}

fn wanted(path: &Path, extensions: &[String]) -> bool {
    extensions.is_empty()
        || path.extension().is_some_and(|own| extensions.iter().any(|known| own == known.as_str()))
}

/// Cuts files into splits of about this size: large files are cut, small ones put together.
pub(crate) fn split(files: &[InputFile], size: u64) -> Vec<Vec<FileRange>> {
    let size = size.max(1);
    let (mut splits, mut current, mut room) = (Vec::new(), Vec::new(), size);
    for InputFile { path, bytes } in files {
        let mut start = 0;
        while start < *bytes {
            let end = start.saturating_add(room).min(*bytes);
            current.push(FileRange { path: path.clone(), start, end });
            room -= end - start;
            start = end;
            if room == 0 {
                splits.push(std::mem::take(&mut current));
                room = size;
            }
        }
    }
    if !current.is_empty() {
        splits.push(current);
    }
    splits
}

/// The lines that begin in the range, all in one; the longest line bounds what is read beyond it.
pub(crate) fn read(range: &FileRange) -> anyhow::Result<Vec<u8>> {
    let name = || format!("cannot read {}", range.path.display());
    let mut reader = BufReader::new(File::open(&range.path).with_context(name)?);
    let mut start = range.start;
    if let Some(before) = start.checked_sub(1) {
        // The line that the byte before belongs to is another range's.
        reader.seek(SeekFrom::Start(before)).with_context(name)?;
        let skipped = reader.skip_until(b'\n').with_context(name)?;
        start = before.saturating_add(u64::try_from(skipped)?);
    }
    let Some(length) = range.end.checked_sub(start).filter(|&length| length > 0) else {
        return Ok(Vec::new());
    };
    let mut bytes = Vec::with_capacity(usize::try_from(length)?);
    reader.by_ref().take(length).read_to_end(&mut bytes).with_context(name)?;
    if bytes.last() != Some(&b'\n') {
        reader.read_until(b'\n', &mut bytes).with_context(name)?;
    }
    Ok(bytes)
}

/// What a word is: a maximal run of alphanumeric characters, in lower case. Bytes that are not
/// UTF-8 separate words. Words do not cross lines, so lines may be counted apart.
pub(crate) fn for_each_word(bytes: &[u8], mut take: impl FnMut(&str)) {
    let mut word = String::new();
    let mut end = |word: &mut String| {
        if !word.is_empty() {
            take(word);
            word.clear();
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_ascii_alphanumeric() {
                word.push(c.to_ascii_lowercase());
            } else if !c.is_ascii() && c.is_alphanumeric() {
                word.extend(c.to_lowercase());
            } else {
                end(&mut word);
            }
        }
        if !chunk.invalid().is_empty() {
            end(&mut word);
        }
    }
    end(&mut word);
}

/// Paths on the wire are bytes, because file names need not be UTF-8.
mod path_bytes {
    use super::{OsStrExt, OsString, OsStringExt, Path, PathBuf};
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_bytes(path.as_os_str().as_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let bytes = Bytes::deserialize(from)?;
        Ok(PathBuf::from(OsString::from_vec(bytes.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        for_each_word(bytes, |word| all.push(word.to_owned()));
        all
    }

    /// A folder of this test, gone when the test is.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("demo-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, bytes: &[u8]) -> InputFile {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            InputFile { path, bytes: bytes.len() as u64 }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(words(b"Hello, hello_world x2-Y!"), ["hello", "hello", "world", "x2", "y"]);
        assert_eq!(words("ÉCOLE Straße ЖУК 中文".as_bytes()), ["école", "straße", "жук", "中文"]);
        assert_eq!(words(b"ab\xffcd \xc3"), ["ab", "cd"]);
        assert_eq!(words(b""), Vec::<String>::new());
    }

    #[test]
    fn every_line_is_read_once_whatever_the_split() {
        let folder = Folder::new("split");
        let texts: [&[u8]; 6] = [
            b"one two\nthree\n\n\nfour five six",
            b"\n\n\n",
            b"no end of line at all but many words",
            b"",
            b"a\nb\nc\nd\ne\n",
            b"\xc3\xa4\n\xc3\xb6\xc3\xbc\n\xf0\x90\x8d\x88 x\n\xe2\n",
        ];
        let files: Vec<_> =
            texts.iter().enumerate().map(|(i, t)| folder.file(&i.to_string(), t)).collect();
        let whole: Vec<String> = texts.iter().flat_map(|text| words(text)).collect();
        for size in 1..60 {
            let splits = split(&files, size);
            let ranges = splits.iter().flatten();
            let read: Vec<_> = ranges.flat_map(|range| words(&read(range).unwrap())).collect();
            assert_eq!(read, whole, "splits of {size} bytes");
            let largest = splits.iter().map(|s| s.iter().map(|r| r.end - r.start).sum::<u64>());
            assert!(largest.max().unwrap() <= size);
        }
    }

    #[test]
    fn folders_are_walked_and_bounded() {
        let folder = Folder::new("find");
        folder.file("b.rs", b"12345");
        folder.file("a/c.rs", b"123");
        folder.file("a/d.txt", b"1");
        let top = [folder.0.clone()];
        let names = |files: Vec<InputFile>| -> Vec<String> {
            let name = |file: InputFile| file.path.file_name().unwrap().to_str().unwrap().into();
            files.into_iter().map(name).collect()
        };
        assert_eq!(names(find(&top, &[], None).unwrap()), ["c.rs", "d.txt", "b.rs"]);
        assert_eq!(names(find(&top, &["rs".into()], None).unwrap()), ["c.rs", "b.rs"]);
        assert_eq!(names(find(&top, &[], Some(4)).unwrap()), ["c.rs", "d.txt"]);
        let twice = [folder.0.join("b.rs"), folder.0.clone()];
        assert_eq!(find(&twice, &[], None).unwrap().len(), 3);
        let error = find(&top, &["zip".into()], None).unwrap_err().to_string();
        assert!(error.starts_with("no input files in /"), "{error}");
        let error = find(&[folder.0.join("nope")], &[], None).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.ends_with("nope"), "{error}");
    }
}

//! Which frames version 1 knows, by their headers.

use super::close::Close;
use crate::wire::frame::{FLAG_HEADERS, Header, KNOWN_FLAGS, Kind};

/// What a frame is, if it is one of this version.
pub(super) fn known_kind(header: Header) -> Result<Kind, Close> {
    let unknown = || Close::protocol(format!("unknown frame kind {:#04x}", header.kind));
    let kind = Kind::from_byte(header.kind).ok_or_else(unknown)?;
    let message = matches!(kind, Kind::OneWay | Kind::Ask);
    let reserved =
        header.flags & !KNOWN_FLAGS != 0 || (header.flags & FLAG_HEADERS != 0 && !message);
    if reserved && kind != Kind::Skip {
        let text = format!("flags {:#04x} in a frame of version 1", header.flags);
        return Err(Close::protocol(text));
    }
    Ok(kind)
}

/// What most frames are: a message or a reply without flags.
pub(super) fn plain_kind(header: Header) -> Option<Kind> {
    if header.flags != 0 {
        return None;
    }
    [Kind::OneWay, Kind::Ask, Kind::Reply].into_iter().find(|kind| *kind as u8 == header.kind)
}

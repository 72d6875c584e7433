//! The writing half of a connection: takes what is pending from the session, and gives it to the
//! socket.

use super::driver::{Driver, TURN, Writing};
use super::transport::ByteStream;
use bytes::{Buf, Bytes};
use rpc_core::spi::Count;
use rpc_core::wire::spare;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::AsyncWrite;

/// Bytes to take from the session at a time: what has been taken counts as sent, and a control
/// frame waits for it.
const WRITE_SIZE: usize = 256 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 32;

impl Driver {
    /// Writes all that is pending, or as much as a turn allows.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Writing>> {
        let mut given = 0_usize;
        loop {
            if self.write.is_empty() {
                if given >= TURN {
                    return Poll::Ready(Ok(Writing::More));
                }
                let (link, write) = (&self.link, &mut self.write);
                link.drive(&mut self.wakes, |s| s.transmit(|| link.now(), WRITE_SIZE, write));
                self.wakes.drain(..).for_each(Waker::wake);
                if self.write.is_empty() {
                    if self.unflushed {
                        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Ready(Ok(Writing::Done));
                }
            }
            let polled = self.poll_write_some(cx);
            self.note_stall(polled.is_pending());
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero)));
            }
            given = given.saturating_add(written);
            self.node.tally.count(Count::Writes);
            self.node.tally.add(Count::BytesSent, written as u64);
            self.unflushed = true;
            self.busy.note();
            self.advance(written);
        }
    }

    /// Tells the session when the socket stops taking output, and when it goes on.
    fn note_stall(&mut self, stalled: bool) {
        if std::mem::replace(&mut self.stalled, stalled) != stalled {
            let now = self.link.now();
            self.link.drive(&mut self.wakes, |session| session.stalled(now, stalled));
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let pen = self.link.pen().take(&mut self.write);
        let polled = Self::write_slices(&mut self.stream, &self.write, cx);
        let all: usize = self.write.iter().map(Bytes::len).sum();
        pen.put_down(matches!(polled, Poll::Ready(Ok(written)) if written == all));
        polled
    }

    fn write_slices(
        stream: &mut Box<dyn ByteStream>,
        write: &VecDeque<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        if let (Some(only), 1) = (write.front(), write.len()) {
            return stream.poll_write(cx, only);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        for (slot, bytes) in slices.iter_mut().zip(write) {
            *slot = IoSlice::new(bytes);
        }
        let used = write.len().min(SLICES);
        stream.poll_write_vectored(cx, slices.get(..used).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0
            && let Some(front) = self.write.front_mut()
        {
            let part = written.min(front.len());
            front.advance(part);
            written = written.saturating_sub(part);
            if front.is_empty()
                && let Some(gone) = self.write.pop_front()
            {
                spare::give(gone);
            }
        }
    }
}

//! The writing half of a driver: takes what is pending from the session, and gives it to the
//! socket.

use super::driver::{Driver, TURN, Writing};
use super::pen::slices;
use super::transport::ByteStream;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::AsyncWrite;

impl Driver {
    /// Writes all that is pending, or as much as a turn allows.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Writing>> {
        let polled = self.poll_pen(cx);
        self.wakes.drain(..).for_each(Waker::wake);
        self.backlog = polled.is_pending();
        let (was, moved) = (self.stalled, std::mem::take(&mut self.moved));
        self.stalled = polled.is_pending();
        if was != self.stalled || self.stalled && moved {
            let (now, stalled) = (self.link.now(), self.stalled);
            self.link.drive(&mut self.wakes, |session| {
                // A socket that is full again has taken something before.
                session.stalled(now, false);
                session.stalled(now, stalled);
            });
        }
        if let Poll::Ready(Ok(Writing::Done)) = polled
            && self.unflushed
        {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        polled
    }

    /// The same with the pen in hand, so that nobody writes what comes later before it.
    fn poll_pen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Writing>> {
        let Self { link, stream, wakes, .. } = self;
        let mut pen = link.pen().take();
        let mut given = 0_usize;
        loop {
            let more = link.take_up(wakes, pen.queue());
            if pen.queue().is_empty() {
                return Poll::Ready(Ok(Writing::Done));
            }
            while !pen.queue().is_empty() {
                let written = ready!(write_some(stream, pen.queue(), cx))?;
                if written == 0 {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero)));
                }
                given = given.saturating_add(written);
                (self.moved, self.unflushed) = (true, true);
                self.busy.note();
                pen.advance(written);
            }
            if !more {
                return Poll::Ready(Ok(Writing::Done));
            }
            if given >= TURN {
                return Poll::Ready(Ok(Writing::More));
            }
        }
    }
}

fn write_some(
    stream: &mut Box<dyn ByteStream>,
    queue: &VecDeque<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let (Some(only), 1) = (queue.front(), queue.len()) {
        return stream.poll_write(cx, only);
    }
    let (slices, used) = slices(queue);
    stream.poll_write_vectored(cx, slices.get(..used).unwrap_or_default())
}

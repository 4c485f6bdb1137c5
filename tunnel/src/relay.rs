//! Copies between a connected socket and a stream, in both directions, with half-close and reset as
//! what they are.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use mirrord_protocol::frame::{DATA_HEADER, Frame, MAX_DATA, data_header};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use crate::bridge::bridge;
use crate::handed::Handed;
use crate::outbox::Ticket;
use crate::state::Broken;
use crate::stream::Stream;

/// What becomes of the bytes that the socket sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// They go through the tunnel.
    Sent,
    /// They go nowhere: the stream is a copy, and someone else answers.
    Dropped,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions came to their end.
    Finished,
    /// The socket's other end reset it.
    ResetHere,
    /// The stream's other end reset it, or could not be connected, or the tunnel ended.
    ResetThere,
}

/// A socket that is relayed.
pub trait Near: AsyncRead + AsyncWrite + Unpin {
    /// Reads what comes next into `room`; 0 at the end.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(self), cx, room)
    }
    /// The same of what has come already, whether the reactor knows or not.
    ///
    /// # Errors
    /// There is nothing, or the socket has failed.
    fn read_now(&self, _room: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Small pieces are not held back.
    fn hurry(&self) {}
    /// Closing it is a reset, also when this process is killed.
    fn close_as_reset(&self) {}
    /// Closing it is an end.
    fn close_as_end(&self) {}
    /// What it is, if TCP.
    fn tcp(self) -> Option<TcpStream>
    where
        Self: Sized,
    {
        None
    }
}

impl Near for TcpStream {
    /// Fewer bytes than were asked for are all that there are, so that others have their turn before
    /// it is read again; but reading stops before an urgent byte as well.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        let wanted = room.remaining_mut();
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read_buf(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(len) if (1..wanted).contains(&len) && !is_urgent(self) => {
                    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    let _ = self.try_io(Interest::READABLE, nothing);
                    return Poll::Ready(Ok(len));
                }
                read => return Poll::Ready(read),
            }
        }
    }

    fn read_now(&self, room: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self, room, RecvFlags::DONTWAIT)?.0)
    }

    fn hurry(&self) {
        let _ = self.set_nodelay(true);
    }

    fn close_as_reset(&self) {
        let _ = self.set_zero_linger();
    }

    fn close_as_end(&self) {
        let _ = set_socket_linger(self, None);
    }

    fn tcp(self) -> Option<TcpStream> {
        Some(self)
    }
}

/// Whether an urgent byte waits: the kernel stops reading before it (tcp(7), SO_OOBINLINE).
fn is_urgent(socket: &TcpStream) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::PRI)];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Its end is a reset if bytes are left in it, and there is no other way to one.
impl Near for UnixStream {}

impl Stream {
    /// Relays until both directions have ended, or one end resets. A stream that was opened here
    /// must be [connected](Stream::connected): where it leads to may have come itself.
    pub async fn relay(self, socket: impl Near, answers: Answers) -> Outcome {
        if let Some(far) = self.take_handed() {
            return self.bridge(socket, far).await;
        }
        socket.hurry();
        socket.close_as_reset();
        let ticket = Ticket::default();
        let mut relay =
            Relay { stream: self, socket, answers, read_ended: false, shut: false, ticket };
        let outcome = poll_fn(|cx| relay.poll(cx)).await;
        if outcome == Outcome::ResetThere {
            relay.socket.close_as_reset();
        }
        outcome
    }

    async fn bridge(self, near: impl Near, far: Handed) -> Outcome {
        // Nothing is left of the stream.
        self.state.borrow_mut().fail(Broken::Reset);
        drop(self);
        let Some(near) = near.tcp() else { return Outcome::ResetThere };
        let Handed { socket, counted: _counted, under_way } = far;
        bridge(near, socket, || drop(under_way)).await
    }
}

struct Relay<S> {
    stream: Stream,
    socket: S,
    answers: Answers,
    read_ended: bool,
    shut: bool,
    ticket: Ticket,
}

impl<S: Near> Relay<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if self.stream.state.borrow().broken.is_some() {
            // As with any reset, what had come before stays readable (tcp_reset()), as far as the
            // socket takes it at once.
            let _ = self.poll_queue(cx);
            return Poll::Ready(Outcome::ResetThere);
        }
        self.stream.state.borrow_mut().waker = Some(cx.waker().clone());
        let down = self.poll_down(cx);
        let orphaned = self.stream.state.borrow().orphaned;
        let up = if orphaned { Poll::Ready(Ok(())) } else { self.poll_up(cx) };
        match (down, up) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(self.reset_here()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Outcome::Finished),
            _ => Poll::Pending,
        }
    }

    fn reset_here(&mut self) -> Outcome {
        self.send_last_words();
        self.stream.state.borrow_mut().fail(Broken::Reset);
        self.stream.tunnel.send(&Frame::Reset(self.stream.id));
        Outcome::ResetHere
    }

    /// What the socket's other end sent before it was reset.
    fn send_last_words(&self) {
        if self.answers == Answers::Dropped || self.read_ended {
            return;
        }
        let mut buffer = vec![0; MAX_DATA];
        loop {
            let mut state = self.stream.state.borrow_mut();
            let room = state.send_room().min(MAX_DATA);
            let Ok(len @ 1..) = self.socket.read_now(&mut buffer[..room]) else { return };
            let bytes = Bytes::copy_from_slice(&buffer[..len]);
            self.stream.tunnel.send(&Frame::Data(self.stream.id, state.sent, bytes));
            state.sent += len as u64;
        }
    }

    /// What has come through the tunnel, to the socket.
    fn poll_queue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut state = self.stream.state.borrow_mut();
            let Some(front) = state.queue.front_mut() else { return Poll::Ready(Ok(())) };
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, front))?;
            front.advance(written);
            if front.is_empty() {
                state.queue.pop_front();
            }
            let rtt = self.stream.tunnel.rtt();
            if let Some((consumed, limit)) = state.consume(written as u64, rtt) {
                let stream = self.stream.id;
                self.stream.tunnel.send_urgent(&Frame::Window { stream, consumed, limit });
            }
        }
    }

    /// Tunnel to socket.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_queue(cx))?;
        if !self.stream.state.borrow().fin_received {
            return Poll::Pending;
        }
        if !self.shut {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx)).or_else(not_connected)?;
            self.socket.close_as_end();
            self.shut = true;
            let (consumed, limit) = self.stream.state.borrow().last_grant();
            let stream = self.stream.id;
            self.stream.tunnel.send_urgent(&Frame::Window { stream, consumed, limit });
        }
        Poll::Ready(Ok(()))
    }

    /// Socket to tunnel.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.read_ended {
            let tunnel = &self.stream.tunnel;
            let (offset, room) = match self.answers {
                Answers::Dropped => (0, MAX_DATA),
                Answers::Sent => {
                    ready!(tunnel.0.outbox.poll_room(cx, &mut self.ticket));
                    let state = self.stream.state.borrow();
                    (state.sent, state.send_room())
                }
            };
            if room == 0 {
                return Poll::Pending;
            }
            let header = data_header(self.stream.id, offset);
            let mut arena = tunnel.0.arena.borrow_mut();
            let max = room.min(MAX_DATA);
            let frame = ready!(arena.poll_frame(cx, &mut self.socket, &header, max))?;
            match frame {
                None => {
                    self.read_ended = true;
                    self.stream.finish();
                }
                Some(_) if self.answers == Answers::Dropped => {}
                Some(frame) => {
                    let len = frame.len() - DATA_HEADER;
                    self.stream.state.borrow_mut().sent += len as u64;
                    tunnel.0.outbox.push(frame);
                    if tunnel.0.outbox.is_contended() {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A peer that has closed both ways already needs no shutdown from us.
pub(crate) fn not_connected(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

//! A byte stream to a port of a pod's loopback, through the API server and the kubelet.
//!
//! kube's own forwarder carries 4 KiB at a time and waits for a write before it reads on; a tunnel
//! needs more of both, so the frames of `v4.channel.k8s.io` are read and written here. Channel 0 is
//! data and channel 1 an error, and each begins with two bytes that repeat the port
//! (k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::future;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use kube::Client;
use kube::api::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const DATA: u8 = 0;
const ERROR: u8 = 1;
/// The most that one frame takes to the pod.
const LARGEST: usize = 64 << 10;

type Messages = Pin<Box<dyn Stream<Item = io::Result<Option<Bytes>>> + Send>>;
type Frames = Pin<Box<dyn Sink<Vec<u8>, Error = io::Error> + Send>>;

/// An open stream.
pub struct Forward {
    messages: Messages,
    frames: Frames,
    unread: Bytes,
    begun: [bool; 2],
    ended: bool,
}

impl Forward {
    /// Asks for a stream to a port of a pod. That the pod accepts it shows with its first bytes.
    ///
    /// # Errors
    /// The API server refuses, or can't reach the pod's node.
    pub async fn open(
        client: &Client,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<Self, kube::Error> {
        let request = Request::new(format!("/api/v1/namespaces/{namespace}/pods"))
            .portforward(pod, &[port])
            .map_err(kube::Error::BuildRequest)?;
        let (sink, stream) = client.connect(request).await?.into_stream().split();
        let messages = stream.map(|message| match message {
            Ok(message) if message.is_binary() => Ok(Some(message.into_data())),
            Ok(message) if message.is_close() => Ok(None),
            Ok(_) => Ok(Some(Bytes::new())),
            Err(error) => Err(io::Error::other(error)),
        });
        let frames = sink
            .sink_map_err(io::Error::other)
            .with(|frame: Vec<u8>| future::ready(Ok::<_, io::Error>(frame.into())));
        Ok(Self {
            messages: Box::pin(messages),
            frames: Box::pin(frames),
            unread: Bytes::new(),
            begun: [false; 2],
            ended: false,
        })
    }

    /// What a frame brings to the reader.
    fn take(&mut self, mut frame: Bytes) -> io::Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        let channel = frame.get_u8();
        let begun = self
            .begun
            .get_mut(usize::from(channel))
            .ok_or_else(|| io::Error::other(format!("a frame came on channel {channel}")))?;
        if !std::mem::replace(begun, true) {
            return Ok(());
        }
        match channel {
            ERROR => Err(io::Error::other(String::from_utf8_lossy(&frame).trim().to_owned())),
            _ => {
                self.unread = frame;
                Ok(())
            }
        }
    }
}

impl AsyncRead for Forward {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.ended {
            match ready!(self.messages.poll_next_unpin(cx)) {
                Some(Ok(Some(frame))) => self.take(frame)?,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(None)) | None => self.ended = true,
            }
        }
        let length = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Forward {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.frames.poll_ready_unpin(cx))?;
        let length = bytes.len().min(LARGEST);
        let mut frame = Vec::with_capacity(length + 1);
        frame.push(DATA);
        frame.extend_from_slice(&bytes[..length]);
        self.frames.start_send_unpin(frame)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames.poll_flush_unpin(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames.poll_close_unpin(cx)
    }
}

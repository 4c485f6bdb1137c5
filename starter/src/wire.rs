//! What the starter and whoever delivers to it agree on.
//!
//! ```text
//!  ► the token, 64 bytes     ◄ GREETING
//!  ► the program's length, 8 bytes, little-endian, then the program as a zlib stream
//!  ◄ DONE, and from then on the program is spoken with; or REFUSAL and a sentence, a line
//! ```
//!
//! Whoever shows a wrong token, or too few bytes of one within [`TOKEN_PATIENCE_MS`], hears nothing.
//! When the kernel refuses the program only after [`DONE`], the refusal follows it.

/// How many bytes a token has.
pub const TOKEN_LENGTH: usize = 64;
/// What the starter says to the right token.
pub const GREETING: &[u8] = b"M1\n";
/// What it says when the program is complete and is the expected one.
pub const DONE: &[u8] = b"ok\n";
/// What its line begins with when a program is not taken.
pub const REFUSAL: &str = "error: ";
/// The longest such line.
pub const LONGEST_REFUSAL: usize = 200;
/// The largest program, in bytes.
pub const LARGEST_PROGRAM: u64 = 128 << 20;
/// How long a peer may take to show its token, in milliseconds.
pub const TOKEN_PATIENCE_MS: u64 = 5_000;
/// How many peers may be without a token at once; one more and the oldest goes.
pub const MOST_STRANGERS: usize = 8;

/// The exit code for anything that has no other.
pub const FAILED: i32 = 1;
/// The exit code for arguments that are none.
pub const MISUSED: i32 = 2;
/// The exit code when the port is taken.
pub const PORT_TAKEN: i32 = 98;
/// The exit code when nothing was delivered in time.
pub const NOT_DELIVERED: i32 = 110;
/// The exit code after SIGTERM and SIGINT.
pub const ENDED: i32 = 143;

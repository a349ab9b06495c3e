//! What held sockets let in: nothing, or only what the relay of [::1] takes.
//!
//! One eBPF program of two instructions serves all sockets; where it may not be loaded each socket
//! gets a classic filter of its own. Neither the system call that loads a program nor the socket
//! option that attaches it has a safe wrapper: the unsafe code is here.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use socket2::{SockFilter, Socket};

/// The program that drops everything, loaded when it is first needed.
#[derive(Debug, Default)]
pub enum DropAll {
    /// Nobody has asked for it yet.
    #[default]
    Unasked,
    /// An eBPF program that all sockets share.
    Shared(OwnedFd),
    /// The kernel refuses to load one: a classic filter for each socket.
    Classic,
}

impl DropAll {
    /// Lets nothing in any more.
    pub fn attach(&mut self, socket: &Socket) -> io::Result<()> {
        if let Self::Unasked = self {
            *self = match load() {
                Ok(program) => Self::Shared(program),
                Err(error) => {
                    tracing::warn!(%error, "no eBPF: each held port has a filter of its own");
                    Self::Classic
                }
            };
        }
        match self {
            Self::Shared(program) => attach(socket, program),
            Self::Classic | Self::Unasked => {
                socket.attach_filter(&[SockFilter::new(RETURN_CONSTANT, 0, 0, 0)])
            }
        }
    }
}

/// BPF_RET | BPF_K (uapi linux/bpf_common.h): how much of the packet is kept.
const RETURN_CONSTANT: u16 = 0x06;
/// BPF_LD | BPF_W | BPF_ABS: four bytes, in host order.
const LOAD_WORD: u16 = 0x20;
/// BPF_LD | BPF_B | BPF_ABS.
const LOAD_BYTE: u16 = 0x30;
/// BPF_ALU | BPF_AND | BPF_K.
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JEQ | BPF_K.
const JUMP_IF_EQUAL: u16 = 0x15;
/// SKF_NET_OFF (uapi linux/filter.h): offsets from here on count from the network header.
const NETWORK: u32 = -0x10_0000_i32 as u32;
/// Where the destination is in an IPv6 header (RFC 8200).
const DESTINATION: u32 = 24;

/// Lets in what is sent to ::1. Only the host itself can: from the wire the kernel takes nothing
/// for ::1 (net/ipv6/ip6_input.c).
pub fn only_to_loopback_v6(socket: &Socket) -> io::Result<()> {
    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK),
        SockFilter::new(AND, 0, 0, 0xf0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 9, 0x60),
    ];
    // Each word of the address, and how far it is from there to the end that drops.
    for (at, word, to_drop) in [(0, 0, 7), (4, 0, 5), (8, 0, 3), (12, 1, 1)] {
        program.push(SockFilter::new(LOAD_WORD, 0, 0, NETWORK + DESTINATION + at));
        program.push(SockFilter::new(JUMP_IF_EQUAL, 0, to_drop, word));
    }
    program.push(SockFilter::new(RETURN_CONSTANT, 0, 0, u32::MAX));
    program.push(SockFilter::new(RETURN_CONSTANT, 0, 0, 0));
    socket.attach_filter(&program)
}

/// BPF_PROG_LOAD (uapi linux/bpf.h).
const LOAD_PROGRAM: libc::c_int = 5;
/// BPF_PROG_TYPE_SOCKET_FILTER.
const SOCKET_FILTER: u32 = 1;
/// `r0 = 0; exit`, eight bytes each: BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT.
const DROP: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The head of `union bpf_attr` as BPF_PROG_LOAD reads it; what is not passed is zero.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn load() -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: SOCKET_FILTER,
        instruction_count: 2,
        instructions: DROP.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"netagent_drop\0\0\0",
    };
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to is static.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LOAD_PROGRAM,
            &raw const attributes,
            size_of::<LoadAttributes>(),
        )
    };
    match i32::try_from(fd) {
        // SAFETY: a new descriptor, which is nobody else's.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "SO_ATTACH_BPF has no safe wrapper")]
fn attach(socket: &Socket, program: &OwnedFd) -> io::Result<()> {
    let program = program.as_raw_fd();
    // SAFETY: the kernel reads one descriptor's number, and both are open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

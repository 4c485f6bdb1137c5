//! The hooks, a row each: the symbol, what stands in for it, and the function behind it. Two engines
//! put them in place:
//!
//! ```text
//!   interpose   each symbol is exported, so that the loader finds it before libc's
//!   frida       Gum replaces the function behind each symbol, also for calls from within libc
//! ```

#[cfg(all(feature = "preload", not(test)))]
use crate::interpose::Original;

/// Where a function of ours is.
#[cfg(all(feature = "frida", not(test)))]
struct Row {
    shim: fn() -> usize,
    original: &'static Original,
}

macro_rules! table {
    ($($module:ident: $($symbol:ident)+;)+) => {
        /// What is hooked.
        pub const SYMBOLS: &[&str] = &[$($(stringify!($symbol),)+)+];

        /// The functions behind the hooks, by their symbols.
        #[cfg(all(feature = "preload", not(test)))]
        #[allow(missing_docs, non_upper_case_globals)]
        pub mod original {
            use super::Original;
            $($(pub static $symbol: Original = Original::new(concat!(stringify!($symbol), "\0"));)+)+
        }

        #[cfg(all(feature = "frida", not(test)))]
        static ROWS: [Row; SYMBOLS.len()] = [$($(Row {
            shim: || crate::interpose::$module::$symbol as *const () as usize,
            original: &original::$symbol,
        },)+)+];
    };
}

table! {
    sockets: socket bind listen connect __connect accept accept4 getsockname getpeername getsockopt
        sendto sendmsg sendmmsg recvfrom __recvfrom_chk recvmsg recvmmsg;
    misc: syscall io_uring_setup io_uring_queue_init io_uring_queue_init_params
        io_uring_queue_init_mem;
    exec: execve execv fexecve execveat execvp execvpe;
    lists: execl execlp execle;
    shell: system popen;
    spawn: posix_spawn posix_spawnp;
    names: getaddrinfo freeaddrinfo;
    hosts: gethostbyname gethostbyname2 gethostbyname_r gethostbyname2_r;
    reverse: getnameinfo gethostbyaddr gethostbyaddr_r;
    resolver: res_query __res_query res_search __res_search res_querydomain __res_querydomain
        res_send __res_send res_nquery __res_nquery res_nsearch __res_nsearch
        res_nquerydomain __res_nquerydomain res_nsend __res_nsend;
    system: uname gethostname __gethostname_chk;
}

/// Puts each row in the place of what this process has by its symbol. What has been replaced under
/// another name stays so. What cannot be replaced stays as it is: in glibc those are functions that
/// only go on at another row's (`execvp` at `execve`, `system` at `posix_spawn`).
#[cfg(all(feature = "frida", not(test)))]
pub fn replace(engine: &mut impl crate::engine::Engine) {
    for Row { shim, original } in &ROWS {
        let place = original.find() as usize;
        if place != 0
            && let Some(before) = engine.replace(place, usize::MAX, shim())
        {
            original.set(before);
        }
    }
}

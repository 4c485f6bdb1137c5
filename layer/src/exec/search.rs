//! Which file a name without a slash means: execvp(3).

use core::ffi::CStr;

use crate::sys;

/// The longest path (PATH_MAX).
pub const LONGEST: usize = 4096;
/// Where programs are without a PATH.
const USUAL: &[u8] = b"/bin:/usr/bin";

/// The first file of this name that may be executed; the name itself if it has a slash.
pub fn find<'a>(name: &CStr, path: Option<&[u8]>, room: &'a mut [u8; LONGEST]) -> Option<&'a CStr> {
    let name = name.to_bytes();
    if name.is_empty() {
        return None;
    }
    if name.contains(&b'/') {
        write(&[name], room)?;
    } else {
        let folders = path.unwrap_or(USUAL).split(|byte| *byte == b':');
        let mut found = folders.filter(|folder| {
            let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
            write(&[folder, slash, name], room).is_some_and(is_program)
        });
        found.next()?;
    }
    CStr::from_bytes_until_nul(room).ok()
}

fn write<'a>(parts: &[&[u8]], room: &'a mut [u8; LONGEST]) -> Option<&'a CStr> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let place = room.get_mut(..=len)?;
    let bytes = parts.iter().copied().flatten().chain(&[0]);
    place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    CStr::from_bytes_with_nul(place).ok()
}

fn is_program(path: &CStr) -> bool {
    let place = [libc::AT_FDCWD as usize, path.as_ptr() as usize];
    // SAFETY: zeros are a value of it, the kernel writes no more than it, and the path ends.
    unsafe {
        let mut status: libc::stat = core::mem::zeroed();
        let arguments = [place[0], place[1], &raw mut status as usize, 0];
        sys::call(libc::SYS_newfstatat, arguments).is_ok()
            && status.st_mode & libc::S_IFMT == libc::S_IFREG
            && sys::call(libc::SYS_faccessat, [place[0], place[1], libc::X_OK as usize]).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &CStr, path: Option<&str>) -> Option<String> {
        let mut room = [0; LONGEST];
        let path = find(name, path.map(str::as_bytes), &mut room)?;
        Some(path.to_str().expect("text").to_owned())
    }

    #[test]
    fn a_name_is_searched_in_the_folders_in_their_order() {
        assert_eq!(found(c"sh", Some("/nowhere:/etc:/bin:/usr/bin")).as_deref(), Some("/bin/sh"));
        assert_eq!(found(c"sh", None).as_deref(), Some("/bin/sh"));
        assert_eq!(found(c"passwd", Some("/etc")), None, "it is no program");
        assert_eq!(found(c"bin", Some("/usr")), None, "it is a folder");
        assert_eq!(found(c"sh", Some("")), None);
        assert_eq!(found(c"", None), None);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(found(c"./x", Some("/bin")).as_deref(), Some("./x"));
    }

    #[test]
    fn a_path_that_is_too_long_is_none() {
        let folder = format!("{}:/bin", "a".repeat(LONGEST));
        assert_eq!(found(c"sh", Some(&folder)).as_deref(), Some("/bin/sh"));
    }
}

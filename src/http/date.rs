//! The Date of a response (RFC 9110 §6.6.1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 9999-12-31T23:59:59Z: a year has four digits in the format.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7). A clock that is wrong beyond what the format can
/// say gives the nearest time that it can.
pub fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_has_a_date() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(http_date(at(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(UNIX_EPOCH - LAST), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(at(u32::MAX.into()) + LAST), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}

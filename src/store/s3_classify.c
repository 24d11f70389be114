/* What an answer of S3 means: a status and the code of its <Error> become one
 * outcome.  Pure.
 *
 * The code says more than the status, so it decides where it is known.  But
 * what a caller takes for certain (exists, absent, no bucket, beyond the end)
 * needs the fitting status as well; and absence, of which a caller may conclude
 * that data is lost or that a volume is new, needs the code: a 404 that some
 * proxy made up says nothing about the key. */
#include <errno.h>
#include <string.h>

#include "store/s3_internal.h"

static const struct {
    const char *code;
    enum s3_outcome outcome;
} codes[] = {
    { "NoSuchKey", S3_ABSENT },
    { "NoSuchBucket", S3_NO_BUCKET },
    { "PreconditionFailed", S3_EXISTS },
    { "InvalidRange", S3_BEYOND },

    { "SlowDown", S3_THROTTLED },
    { "SlowDownRead", S3_THROTTLED },
    { "SlowDownWrite", S3_THROTTLED },
    { "Throttling", S3_THROTTLED },
    { "ThrottlingException", S3_THROTTLED },
    { "ThrottledException", S3_THROTTLED },
    { "RequestThrottled", S3_THROTTLED },
    { "RequestThrottledException", S3_THROTTLED },
    { "RequestLimitExceeded", S3_THROTTLED },
    { "BandwidthLimitExceeded", S3_THROTTLED },
    { "LimitExceededException", S3_THROTTLED },
    { "TooManyRequests", S3_THROTTLED },
    { "TooManyRequestsException", S3_THROTTLED },
    { "PriorRequestNotComplete", S3_THROTTLED },
    { "ProvisionedThroughputExceededException", S3_THROTTLED },

    { "InternalError", S3_RETRY },
    { "ServiceUnavailable", S3_RETRY },
    { "RequestTimeout", S3_RETRY },
    { "RequestTimeoutException", S3_RETRY },
    { "ConditionalRequestConflict", S3_RETRY },
    { "OperationAborted", S3_RETRY },
    { "IncompleteBody", S3_RETRY },
    { "BadDigest", S3_RETRY },
    { "XAmzContentChecksumMismatch", S3_RETRY },
    { "XAmzContentSHA256Mismatch", S3_RETRY },

    { "ExpiredToken", S3_EXPIRED },
    { "ExpiredTokenException", S3_EXPIRED },
    { "RequestExpired", S3_EXPIRED },
    { "TokenRefreshRequired", S3_EXPIRED },
    { "InvalidToken", S3_EXPIRED },
    { "InvalidTokenId", S3_EXPIRED },
    { "InvalidClientTokenId", S3_EXPIRED },
    { "InvalidAccessKeyId", S3_EXPIRED },
    { "UnrecognizedClientException", S3_EXPIRED },
    { "XAdminUserNotFound", S3_EXPIRED }, /* versitygw's word for an access key that it does not know */

    { "RequestTimeTooSkewed", S3_SKEWED },
    { "RequestInTheFuture", S3_SKEWED },

    { "PermanentRedirect", S3_REGION },
    { "TemporaryRedirect", S3_RETRY },
    { "AuthorizationHeaderMalformed", S3_REGION },
    { "IllegalLocationConstraintException", S3_REGION },

    { "AccessDenied", S3_DENIED },
    { "AccountProblem", S3_DENIED },
    { "AllAccessDisabled", S3_DENIED },
    { "NotSignedUp", S3_DENIED },
    { "SignatureDoesNotMatch", S3_DENIED },

    { "QuotaExceeded", S3_FULL },
    { "XMinioStorageFull", S3_FULL },
    { "XMinioAdminBucketQuotaExceeded", S3_FULL },

    { "NotImplemented", S3_FATAL },
    { "MethodNotAllowed", S3_FATAL },
};

static enum s3_outcome by_status(int status, bool has_code)
{
    switch (status) {
    case 301:
    case 308:
        return S3_REGION;
    case 401:
    case 403:
        return S3_DENIED;
    case 404:
        return has_code ? S3_FATAL : S3_RETRY;
    case 408:
    case 409:
    case 425:
        return S3_RETRY;
    case 412:
        return S3_EXISTS;
    case 416:
        return S3_BEYOND;
    case 429:
        return S3_THROTTLED;
    case 501:
        return S3_FATAL;
    case 507:
        return S3_FULL;
    default:
        return status >= 400 && status < 500 ? S3_FATAL : S3_RETRY;
    }
}

/* The one status with which an outcome is believed; 0: any. */
static int status_of(enum s3_outcome outcome)
{
    switch (outcome) {
    case S3_ABSENT:
    case S3_NO_BUCKET:
        return 404;
    case S3_EXISTS:
        return 412;
    case S3_BEYOND:
        return 416;
    default:
        return 0;
    }
}

enum s3_outcome s3_classify(int status, const char *code)
{
    enum s3_outcome outcome = by_status(status, code[0] != '\0');
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(codes[i].code, code) != 0)
            continue;
        int needed = status_of(codes[i].outcome);
        if (needed == 0 || needed == status)
            outcome = codes[i].outcome;
        break;
    }
    return outcome;
}

int s3_outcome_errno(enum s3_outcome outcome, int status, const char *code)
{
    switch (outcome) {
    case S3_EXISTS:
        return EEXIST;
    case S3_ABSENT:
        return ENOENT;
    case S3_THROTTLED:
        return EBUSY;
    case S3_EXPIRED:
        /* What has expired will be replaced; only a key that is not known is a refusal. */
        return strstr(code, "Expired") != NULL || strstr(code, "Token") != NULL ? EKEYEXPIRED : EACCES;
    case S3_SKEWED:
    case S3_DENIED:
        return EACCES;
    case S3_REGION:
        return EXDEV;
    case S3_NO_BUCKET:
        return ENXIO;
    case S3_FULL:
        return ENOSPC;
    case S3_CANCELLED:
        return ECANCELED;
    case S3_FATAL:
        if (status == 405 || status == 501 || strcmp(code, "NotImplemented") == 0)
            return EOPNOTSUPP;
        return status == 400 ? EINVAL : EIO;
    default:
        return EIO;
    }
}

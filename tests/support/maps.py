"""Map files of tftpd-hpa as they are in use, and names that machines ask for under them.

May know: nothing but text. Debian's is the sample of its package; Ironic's is in its documentation, groups that do not
exist included; xCAT writes its own; FOG's users change back slashes and the case of one directory for Windows.
"""

from collections.abc import Mapping, Sequence

DEBIAN = rb"""# Convert backslashes to slashes, drive letters away, and no way out
rg	\\	/		# DOS
ri	^[a-z]:			# Remove "drive letters"
rg	\#	@
rg	/../	/..no../
e	^ok/
r	^[^/]	/tftpboot/\0
a	\.pvt$
"""
IRONIC = rb"""re ^(/tftpboot/) /tftpboot/\2
re ^/tftpboot/ /tftpboot/
re ^(^/) /tftpboot/\1
re ^([^/]) /tftpboot/\1
"""
XCAT = rb"""rg (\\) \/
"""
FOG = rb"""rg \\ /
r ^/?[Bb][Oo][Oo][Tt]/(.*)$ /Boot/\1
r \.efi.* \.efi
"""
LOWER = rb"""rg \\ /
r .* \L\0
"""
PHONES = rb"""ri ^/?(SEP|SIP)([0-9A-F]{12})\.cnf(\.xml)?$ phones/\U\1\E/\L\2\E.cnf\3
ri ^/?([0-9a-f]{2})-([0-9a-f]{2})-(.*)\.img$ \1\2/\i/\3
rP ^ incoming/
"""

MAPS: Mapping[str, bytes] = {
    "Debian": DEBIAN,
    "Ironic": IRONIC,
    "xCAT": XCAT,
    "FOG": FOG,
    "lower case": LOWER,
    "phones": PHONES,
}
NAMES: Sequence[bytes] = (
    b"pxelinux.0",
    b"/pxelinux.0",
    b"/tftpboot/pxelinux.cfg/01-aa-bb-cc-dd-ee-ff",
    b"tftpboot/grubx64.efi",
    rb"C:\Boot\BCD",
    rb"\Boot\x64\wdsnbp.com",
    rb"boot\Fonts\wgl4_boot.ttf",
    b"ok/at/once#1",
    b"of#ten",
    b"secret.pvt",
    b"/secret.pvt",
    b"ok/secret.pvt",
    b"/aa/bb/ab/cd/",
    b"ipxe.efi\xff\x03\n",
    b"undionly.kpxe\n",
    b"sep00aB1122CCDD.cnf.xml",
    b"SIP00AB1122CCDD.cnf",
    b"01-02-kernel.img",
    b"firmw\xe4re.bin",
    b"a b c",
    b"//x",
)

"""Configurations of other TFTP servers, as ours: one module for each form that a file has.

    /etc/default/tftpd-hpa ─┐
    tftp.service           ─┤
    xinetd.d/tftp          ─┼─forms.read──► Carried: our keys, each with where it comes from, and what is lost and why
    dnsmasq.conf           ─┤
    /etc/default/atftpd    ─┘

Invariant: nothing is dropped in silence. What has no counterpart is a remark that says what to do instead.
"""

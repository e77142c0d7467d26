# /// script
# dependencies = ["lxml"]
# [tool.strongroom]
# memory = "64M"
# ///
"""XPath, a schema, a transformation, broken HTML."""

from lxml import etree, html

root = etree.fromstring(
    "<records>" + "".join(f'<r id="{n}"><v>{n * n}</v></r>' for n in range(100)) + "</records>"
)
print(root.xpath("sum(//v)"), root.xpath("//r[@id='7']/v/text()"))
schema = etree.XMLSchema(
    etree.fromstring(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="n" type="xs:int"/></xs:schema>'
    )
)
print(schema.validate(etree.fromstring("<n>1</n>")), schema.validate(etree.fromstring("<n>x</n>")))
style = etree.XSLT(
    etree.fromstring(
        '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/">'
        '<out><xsl:value-of select="count(//r)"/></out></xsl:template></xsl:stylesheet>'
    )
)
print(str(style(root)).strip())
print(html.tostring(html.fromstring("<p>one<p>two<b>three")).decode())

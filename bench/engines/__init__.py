"""AmberDB and the engines that it is compared with, behind common interfaces."""
